"""The points beside a photo."""

import math
import os

import numpy as np

from facegcn.landmarks import points_beside
from tests.fuzzing import attempts
from tests.fuzzing.changes import misspelt


class Reader(attempts.Reader):
    """``NAME.lm68.txt`` or ``NAME.txt`` of 5 or 68 rows."""

    def seeds(self):
        rows = np.random.default_rng(0).uniform(0, 500, (68, 2))
        five = "".join(f"{x:.2f} {y:.2f}\n" for x, y in rows[:5])
        commas = "\n".join(f"{x:.0f},{y:.0f}" for x, y in rows)
        decimals = "".join(f"{x:.1f};{y:.1f}\r\n" for x, y in rows[:5]).replace(".", ",")
        remarks = "# eyes\n" + five.replace("\n", "\n\n", 2) + "# end"
        return [{"a.txt": text.encode()} for text in (five, commas, decimals, remarks)] + [
            {"a.lm68.txt": commas.encode(), "a.txt": five.encode()}]

    def change(self, rng, name, data, others):
        return misspelt(rng, data, others)

    def read(self, folder):
        found = points_beside(os.path.join(folder, "a.jpg"))
        names = [name for name in ("a.lm68.txt", "a.txt") if os.path.exists(os.path.join(folder, name))]
        with open(os.path.join(folder, names[0]), "rb") as file:
            return found, file.read()

    def wrong(self, answer):
        points, content = answer
        if points is None:
            return ""
        if points.shape not in ((5, 2), (68, 2)) or points.dtype != np.float32:
            return f"points of shape {points.shape} {points.dtype}"
        if not (np.abs(points) <= 1e6).all():
            return "points that lie nowhere"
        plain = _plain(content)
        if plain is not None and not np.array_equal(points, np.array(plain, np.float32)):
            return "other points than the file's"
        return ""


def _plain(content):
    """The rows of a file that has nothing else, by the shortest program that reads such; or None."""
    try:
        rows = [[float(word) for word in line.split()] for line in content.decode("ascii").split("\n") if line.strip()]
    except ValueError:
        return None
    return rows if all(len(row) == 2 and all(map(math.isfinite, row)) for row in rows) else None
