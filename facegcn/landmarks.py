"""Points on faces: their orders, their files, and what a fit is pulled to.

Points are pixels, x right, y down, (0, 0) the picture's top left corner (so the first pixel's centre is
(0.5, 0.5), as in ``camera.to_pixels``). 68 points are in iBUG order; five are the eyes' middles, the nose's tip
and the corners of the mouth.
"""

from __future__ import annotations

import logging
import os
import re

import numpy as np

from facegcn import files
from facegcn.errors import PhotoError, UserError

log = logging.getLogger("facegcn")

LANDMARK_COUNT = 68  # iBUG / Multi-PIE order
#: Landmark indices whose mean gives each of the five alignment points: left eye, right eye (as seen in the picture,
#: 0-based iBUG order), nose tip, left and right mouth corner.
FIVE_POINT_LANDMARKS = ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47), (30,), (48,), (54,))
DENSE_COUNT = 468  # points of MediaPipe's face mesh
#: The same of the dense points: six around each eye, the nose's tip, the corners of the mouth. Of all dense points
#: these lie nearest to the iBUG points on made portraits, 2 percent of the face's width off at the median.
FIVE_POINT_DENSE = ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380), (4,), (61,), (291,))
POINT_ORDER = ("left eye, right eye, nose tip, left mouth corner, right mouth corner "
               "(left = left in the picture)")
#: Landmark targets are the 68 iBUG points followed by the five alignment points.
TARGET_COUNT = LANDMARK_COUNT + len(FIVE_POINT_LANDMARKS)
_HEADER_LINES = 2  # of CelebA's list: the count, the names of the columns
_FARTHEST = 1e6  # pixels from the corner; what is farther is no place in a photo
_LONGEST = 1 << 20  # characters of a file beside a photo; 68 rows have 2,000
_NUMBER = r"([^\s,;]+)"
#: A row: two words between spaces, a comma or a semicolon; or two decimal numbers with commas as in "40,5 50,25".
_ROW = re.compile(rf"{_NUMBER}\s*[\s,;]\s*{_NUMBER}")
_COMMA_ROW = re.compile(r"([-+]?\d+(?:,\d+)?)\s*;\s*([-+]?\d+(?:,\d+)?)|([-+]?\d+,\d+)\s+([-+]?\d+,\d+)")


def five_points(points: np.ndarray) -> np.ndarray:
    """(5, D) alignment points of (5, D) or (68, D) points; D is 2 in a picture, 3 on a model."""
    if len(points) == len(FIVE_POINT_LANDMARKS):
        return points
    return np.stack([points[list(group)].mean(axis=0) for group in FIVE_POINT_LANDMARKS])


def landmark_targets(points, points68=None) -> np.ndarray:
    """(73, 2) float32 pixel targets, NaN where unknown.

    Args:
        points: (5, 2) alignment points, or None; NaN where unknown.
        points68: (68, 2) iBUG points, or None, or NaN; when known they make the five superfluous.
    """
    targets = np.full((TARGET_COUNT, 2), np.nan, np.float32)
    if points68 is not None and np.isfinite(points68).any():
        targets[:LANDMARK_COUNT] = points68
    elif points is not None:
        targets[LANDMARK_COUNT:] = points
    return targets


def known_dense(dense) -> np.ndarray:
    """(468, 3) float32 dense landmarks, x, y and trust; NaN, NaN and 0 for None."""
    if dense is not None:
        return np.asarray(dense, np.float32)
    return np.tile(np.array([np.nan, np.nan, 0.0], np.float32), (DENSE_COUNT, 1))


def roll(points: np.ndarray) -> float:
    """How far a head is rolled, degrees in (-180, 180]; positive is clockwise in the picture.

    It is the rotation that brings the lines between the eyes and between the mouth's corners nearest to the
    horizontal, and the line from the eyes down to the mouth nearest to the vertical, each weighed by its length:
    where a head is turned or bowed, one of them is short and says little.

    Args:
        points: (5, 2), x right, y down.
    """
    left, right, _, mouth_left, mouth_right = np.asarray(points, np.float64)
    across = right - left + mouth_right - mouth_left
    down = mouth_left + mouth_right - left - right
    return float(np.degrees(np.arctan2(across[1] - down[0], across[0] + down[1])))


# ---------------------------------------------------------------- the file beside a photo
def read_points(path: str) -> np.ndarray:
    """Reads a landmark file: 5 or 68 rows of ``x y``, ``x,y`` or ``x;y``; decimal commas are read, too.

    Five rows are left eye, right eye, nose tip, left and right mouth corner (left = left in the
    picture); 68 rows are in iBUG order. Blank lines and lines that start with # are passed over.

    Returns:
        (5, 2) or (68, 2) float32, pixels of the photo.

    Raises:
        PhotoError: absent, a row is not two finite numbers, or another number of rows.
    """
    rows = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        row = _row(line)
        if row is None:
            raise PhotoError(f"{path}, line {number}: expected 'x y', got '{line[:80]}'", "bad points")
        rows.append(row)
    if len(rows) not in (len(FIVE_POINT_LANDMARKS), LANDMARK_COUNT):
        raise PhotoError(f"{path}: has {len(rows)} points, expected 5 ({POINT_ORDER}) or 68 (iBUG order)",
                         "bad points")
    return np.array(rows, np.float32)


def write_points(path: str, points: np.ndarray) -> None:
    """Writes points (P, 2), one ``x y`` a line, as ``read_points`` reads them. Raises OSError."""
    files.write_text(path, "".join(f"{x:.2f} {y:.2f}\n" for x, y in points))


def points_beside(path: str) -> np.ndarray | None:
    """Points of the file beside a photo: ``NAME.lm68.txt``, else ``NAME.txt``, else None.

    A ``NAME.txt`` without a single row of numbers is a caption, as training sets for image generators have them:
    it is passed over, and the log says so.

    Raises:
        PhotoError: as ``read_points``.
    """
    stem = os.path.splitext(path)[0]
    if os.path.isfile(f"{stem}.lm68.txt"):
        return read_points(f"{stem}.lm68.txt")
    beside = f"{stem}.txt"
    if not os.path.isfile(beside):
        return None
    if not any(_is_numbers(line) for line in _text(beside).splitlines()):
        log.warning("%s has no rows 'x y' of points: it is passed over", beside)
        return None
    return read_points(beside)


def _text(path: str) -> str:
    """The beginning of a text file; what is not UTF-8 in it becomes a sign that is no number."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return file.read(_LONGEST)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise PhotoError(f"{path}: cannot be read: {error}", "bad points") from error


def _row(line: str) -> tuple[float, float] | None:
    """The two numbers of a row, or None when it is something else."""
    words = _ROW.fullmatch(line)
    if words is None and _COMMA_ROW.fullmatch(line):
        words = _ROW.fullmatch(line.replace(",", "."))
    numbers = [_number(word) for word in words.groups()] if words else [None]
    return None if None in numbers else tuple(numbers)


def _number(word: str) -> float | None:
    """A number that may be a pixel, or None."""
    try:
        value = float(word)
    except ValueError:
        return None
    return value if abs(value) < _FARTHEST else None  # False for NaN


def _is_numbers(line: str) -> bool:
    """Whether a line holds numbers and nothing else."""
    words = re.split(r"[\s,;]+", line.strip())
    return all(_number(word) is not None for word in words)


# ---------------------------------------------------------------- lists of many photos
def read_landmark_list(path: str) -> dict[str, np.ndarray]:
    """Landmarks of many photos from one file, such as CelebA's ``list_landmarks_celeba.txt``.

    Each line is a file name and the x and y of 5 or 68 points, between spaces, commas or semicolons, in the orders
    of ``read_points``. The first two lines may be a count and the columns' names. Folders before a name do not count.

    Returns:
        (5, 2) or (68, 2) float32 by file name without its ending, pixels of the photo.

    Raises:
        UserError: absent, or a line is something else; names the line.
    """
    found = {}
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"--landmarks {path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        words = re.split(r"[\s,;]+", line.strip())
        points = _points(words[1:])
        if points is not None:
            name = re.split(r"[/\\]", words[0])[-1]
            found[os.path.splitext(name)[0]] = points
        elif words != [""] and number > _HEADER_LINES:
            raise UserError(f"--landmarks {path}, line {number}: expected a file name and 10 numbers, x and y of "
                            f"{POINT_ORDER}, or 136; got '{line[:80]}'")
    if not found:
        raise UserError(f"--landmarks {path}: no line has a file name and the numbers of 5 or 68 points")
    return found


def _points(words: list[str]) -> np.ndarray | None:
    """(P, 2) float32, or None when these are not the numbers of 5 or 68 points."""
    numbers = [_number(word) for word in words]
    if len(numbers) not in (2 * len(FIVE_POINT_LANDMARKS), 2 * LANDMARK_COUNT) or None in numbers:
        return None
    return np.array(numbers, np.float32).reshape(-1, 2)
