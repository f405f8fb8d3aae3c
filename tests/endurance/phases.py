"""What ``kills`` kills: for each phase its command, its moments, and what must be true afterwards."""

from __future__ import annotations

import glob
import os
import re
import shutil
from typing import NamedTuple

import numpy as np
import skimage.data
import skimage.io

from facegcn.errors import BinFileError
from facegcn.files import code_version, digest
from facegcn.photos import packed_file
from facegcn.reconstruction.results import JOURNAL
from facegcn.training import encoding
from tests.endurance.small_world import SmallWorld
from tests.endurance.wholeness import contents, differences, is_leftover, kept_files, names_seen, stats, weights

_STEPS_BEFORE_A_KILL = 16  # at most: a training of some fifty steps is killed several times
_DELAY = 0.03  # seconds behind an event, at most: writing a small file takes about that long
_OLD, _NEW = "old", "new"


class Moment(NamedTuple):
    """When a start is killed: ``delay`` seconds behind the event number ``count`` after its start.

    Attributes:
        what: ``start`` (the delay counts from it), ``file`` (a name appears in a watched folder), or ``step``.
        count: of the event.
        delay: seconds.
    """

    what: str
    count: int
    delay: float


class Phase:
    """One kind of work that is killed again and again, until it is done; then it is begun anew.

    Args:
        folder: of this phase.
        base: a world with a trained run and a packed file, whose files are copied.
    """

    name = ""
    #: Shares of the moments by ``Moment.what``; the greatest count of each, and the longest delay behind a start.
    shares = {"start": 0.3, "file": 0.7}
    events, longest = 12, 2.0

    def __init__(self, folder: str, base: SmallWorld):
        self.world = base.copied(folder)
        self.lost: int | str = "-"
        self._fewer: dict[str, int] = {}

    def prepare(self) -> None:
        """Runs in a start before its command."""

    def begin(self) -> None:
        """Makes the phase's folder ready for new work."""

    def command(self) -> tuple[str, list[str]]:
        """(script, arguments) of the next start, which goes on with the work."""
        raise NotImplementedError

    def watched(self) -> list[str]:
        """Folders in which files appear."""
        raise NotImplementedError

    def steps(self) -> int:
        """Training steps that the work has behind it; names of files where it has none."""
        return 0

    def moment(self, rng: np.random.Generator) -> Moment:
        """Draws when the next start is killed."""
        what = str(rng.choice(list(self.shares), p=list(self.shares.values())))
        if what == "start":
            return Moment(what, 0, float(rng.uniform(0, self.longest)))
        most = self._fewer.get(self.kind(), self.events) if what == "file" else _STEPS_BEFORE_A_KILL
        count = int(rng.integers(1, most + 1))
        return Moment(what, count, float(rng.uniform(0, _DELAY)))

    def kind(self) -> str:
        """Which of several kinds of work this is."""
        return ""

    def ended_early(self, seen: int) -> None:
        """A start ended by itself behind so many files: moments are drawn among them from now on."""
        self._fewer[self.kind()] = max(1, seen)

    def after_kill(self) -> list[str]:
        """What must not be, after a kill: files that are not whole."""
        return kept_files(self.watched())

    def after_start(self, shown: str) -> list[str]:
        """What must not be, when the start behind a kill has ended or was killed: work that was done again."""
        return []

    def at_end(self) -> list[str]:
        """What must not be, when the work is done: differences from work that nobody killed."""
        raise NotImplementedError

    def lost_seconds(self) -> float | None:
        """Seconds of training that the kill cost; None where nothing is trained."""
        return None

    def expect(self, run) -> None:
        """Does the work undisturbed, where the base world has not."""

    def leftovers(self) -> list[str]:
        """Files that a killed start left half written."""
        return [name for name in names_seen(self.watched()) if is_leftover(name)]


class Packing(Phase):
    """``create_bin.py`` over an older packed file: of made portraits that it makes, of crops, or of photos."""

    name = "packing"
    events, longest = 30, 6.0

    def __init__(self, folder, base):
        super().__init__(folder, base)
        made = glob.glob(self.world.path("data", "portraits-*", "*.png"))
        for which, chosen in ((_OLD, sorted(made)[:3]), (_NEW, sorted(made)[2:7])):
            os.makedirs(self.world.path("crops", which))
            for path in chosen:
                shutil.copy(path, self.world.path("crops", which))
        photo = skimage.data.astronaut()
        for which, photos in ((_OLD, [photo[:, ::-1]]), (_NEW, [photo, photo[:, ::-1]])):
            os.makedirs(self.world.path("photos", which))
            for number, picture in enumerate(photos):
                skimage.io.imsave(self.world.path("photos", which, f"photo{number}.png"), picture)
        self._round, self._expected, self._which = -1, {}, _NEW
        self.out = self.world.path("packed", "faces.bin")

    def kind(self):
        return ("--input", "--photos", "--made")[self._round % 3]

    def sources(self, which: str) -> list[str]:
        """Arguments that name what is packed in this round."""
        kind = self.kind()
        if kind == "--made":
            return ["--made", "--set", "demo_portraits=5", "--seed", "3" if which == _OLD else "4"]
        return [kind, self.world.path("crops" if kind == "--input" else "photos", which)]

    def references(self):
        """(arguments, folder) of the packings that nobody kills."""
        for which in (_OLD, _NEW):
            folder = self.world.path(f"expected{self.kind()}-{which}")
            yield which, folder, ("create_bin", self.world.flags(
                *self.sources(which), "--out", os.path.join(folder, "faces.bin")))

    def begin(self):
        self._round += 1
        shutil.rmtree(self.world.path("packed"), ignore_errors=True)

    def expect(self, run) -> None:
        """Packs both undisturbed, and the old one where the new one is to come."""
        for which, folder, command in self.references():
            if not os.path.exists(folder):
                run(*command)
            self._expected[which] = contents([folder])
        shutil.copytree(self.world.path(f"expected{self.kind()}-{_OLD}"), self.world.path("packed"))
        for path in glob.glob(self.world.path("data", "portraits-*")):
            if self.kind() == "--made":
                shutil.rmtree(path)

    def command(self):
        return "create_bin", self.world.flags(*self.sources(_NEW), "--out", self.out)

    def watched(self):
        return [self.world.path("packed"), self.world.path("data")]

    def after_kill(self):
        """Every file is the old or the new one, and both of a pair, or the pair is refused."""
        found = contents([self.world.path("packed")])
        broken = [name for name, data in found.items()
                  if data not in (self._expected[_OLD].get(name), self._expected[_NEW].get(name))]
        try:
            packed_file.read_companion(self.out)
            packed_file.verify(self.out)
        except BinFileError as error:
            if "do not belong together" not in str(error):
                broken.append(str(error))
        return broken + kept_files([self.world.path("data")])

    def at_end(self):
        return differences(self._expected[_NEW], contents([self.world.path("packed")]))


class Encoding(Phase):
    """The packing of made portraits and the encoding of all records, before stage render's first step."""

    name = "encoding"
    events, longest = 24, 4.0

    def __init__(self, folder, base):
        super().__init__(folder, base)
        self._expected = contents([self.world.data], "*.encoding-*.npy", "made-*")
        self._parts = {}

    def prepare(self):
        encoding._PART = 2  # so that a few records have several parts

    def begin(self):
        kept = [path for pattern in ("*.encoding-*", "made-*") for path in glob.glob(self.world.path("data", pattern))]
        for path in set(kept):
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
        for path in glob.glob(self.world.path("runs", "*-encoded")):
            shutil.rmtree(path)

    def command(self):
        going = ["--restore"] if glob.glob(self.world.path("runs", "*-encoded", "config.yaml")) else []
        return "main", self.world.flags("--mode", "train", "--stage", "render", "--suffix", "encoded",
                                        "--set", "epoch=0", *going)

    def watched(self):
        return [self.world.data, *glob.glob(self.world.path("runs", "*-encoded"))]

    def after_kill(self):
        self._parts = {path: os.stat(path).st_ino for path in glob.glob(
            self.world.path("data", "*.parts", "[0-9]*"))}
        return super().after_kill()

    def after_start(self, shown):
        """Parts that were there are not made again."""
        again = [path for path, number in self._parts.items()
                 if os.path.exists(path) and os.stat(path).st_ino != number]
        self._parts = {}
        return [f"encoded again: {path}" for path in again]

    def at_end(self):
        return differences(self._expected, contents([self.world.data], "*.encoding-*.npy", "made-*"))


class Training(Phase):
    """A stage of training; ``reference`` is the suffix of an undisturbed run in the base world."""

    shares = {"start": 0.1, "file": 0.1, "step": 0.8}
    stage, reference, settings = "rec", "rec", ()
    events, longest = 30, 10.0

    def __init__(self, folder, base):
        super().__init__(folder, base)
        self._whole = glob.glob(self.world.path("runs", f"*-{self.reference}"))[0]
        self._before, self._saved = 0, False

    def run(self) -> str:
        """The newest run folder of this phase that has settings; "" without one."""
        runs = glob.glob(self.world.path("runs", "*-killed", "config.yaml"))
        return os.path.dirname(max(runs)) if runs else ""

    def begin(self):
        for path in glob.glob(self.world.path("runs", "*-killed")):
            shutil.rmtree(path)
        self._before, self._saved, self.lost = 0, False, "-"

    def command(self):
        going = ["--restore"] if self.run() else []
        settings = [word for setting in self.settings for word in ("--set", setting)]
        return "main", self.world.flags("--mode", "train", "--stage", self.stage, "--suffix", "killed", *settings,
                                        *going)

    def watched(self):
        return glob.glob(self.world.path("runs", "*-killed"))

    def steps(self):
        return max((line["step"] for line in stats(self.run()) if line["stage"] == self.stage), default=0)

    def _checkpoints(self) -> list[str]:
        kind = "regressor" if self.stage == "rec" else "texture"
        return glob.glob(self.world.path("runs", "*-killed", "checkpoints", kind, "*.index"))

    def after_kill(self):
        self._before, self._saved = self.steps(), bool(self._checkpoints())
        return super().after_kill()

    def lost_seconds(self) -> float:
        """Seconds of training between the newest checkpoint, or the first step of this start, and the last step."""
        times = [line["seconds"] for line in stats(self.run(), "seconds")
                 if line["stage"] == self.stage and "seconds" in line]  # not those of validations
        if not times:
            return 0.0
        first = len(times) - 1
        while first and times[first - 1] <= times[first]:  # they count from the start of the program
            first -= 1
        last = os.path.getmtime(os.path.join(self.run(), "stats.jsonl"))
        saved = max(map(os.path.getmtime, self._checkpoints()), default=0.0)
        return round(max(0.0, last - max(saved, last - (times[-1] - times[first]))), 2)

    def after_start(self, shown):
        """How many steps were lost is found out from where the start went on, if it came that far."""
        at = re.search(r"continuing from \S+: step (\d+)", shown)
        self.lost = self._before - int(at[1]) if at else "-" if self._saved else self._before
        return [line for line in shown.splitlines() if "passing over" in line]

    def at_end(self):
        run = self.run()
        wrong = [] if stats(run) == stats(self._whole) else ["stats.jsonl"]
        expected, found = weights(self._whole), weights(run)
        wrong += sorted(set(expected) ^ set(found))
        wrong += [name for name in set(expected) & set(found) if not np.array_equal(expected[name], found[name])]
        return wrong + differences(contents([self._whole], "samples/*"), contents([run], "samples/*"))


class Rec(Training):
    name = "rec"


class Render(Training):
    name, stage, reference = "render", "render", "render"


class Checkpoint(Training):
    """Stage render with a checkpoint after every step, killed while files appear in the checkpoints' folder."""

    name, stage, reference = "checkpoint", "render", "render"
    shares = {"file": 1.0}
    settings = ("checkpoint_seconds=0",)
    events = 40

    def watched(self):
        return glob.glob(self.world.path("runs", "*-killed", "checkpoints"))


class Export(Phase):
    """Test mode, with all that it writes of a few faces; it goes on with ``--resume``."""

    name = "export"
    events, longest = 150, 6.0

    def __init__(self, folder, base):
        super().__init__(folder, base)
        self._expected, self._written = {}, {}
        os.makedirs(self.world.path("crops"))
        for path in sorted(glob.glob(self.world.path("data", "portraits-*", "*.png")))[:4]:
            shutil.copy(path, self.world.path("crops"))

    def expect(self, run) -> None:
        """Reconstructs undisturbed."""
        folder = self.world.path("expected", "results")  # a report names its folder
        if not os.path.exists(os.path.join(folder, "report.html")):
            run("main", self._arguments(folder))
        self._expected = self._results(folder)

    def _arguments(self, output):
        return self.world.flags("--mode", "test", "--suffix", "render", "--texture", "1024", "--views", "--input",
                                self.world.path("crops"), "--set", "test_batch_size=1", "--output", output)

    @staticmethod
    def _results(folder) -> dict[str, str]:
        """All but the journal, which grows, and has other lines in a run that went on; of the report its pictures: what
        faces share comes with the first one that a run has in memory."""
        found = {name: data for name, data in contents([folder]).items() if name != JOURNAL}
        report = os.path.join(folder, "report.html")
        if os.path.exists(report):
            with open(report, encoding="utf-8") as file:
                found["report.html"] = digest(*re.findall(r' src="([^"]+)"', file.read()))
        return found

    def begin(self):
        shutil.rmtree(self.world.path("results"), ignore_errors=True)

    def command(self):
        going = ["--resume"] if os.path.exists(self.world.path("results", JOURNAL)) else []
        return "main", [*self._arguments(self.world.path("results")), *going]

    def watched(self):
        return [self.world.path("results")]

    def after_kill(self):
        self._written = {path: os.stat(path).st_ino for path in self._done()}
        found = self._results(self.world.path("results"))
        # What is said of all photos may be of those before a stop; at the end it is compared.
        return [name for name, data in found.items() if data != self._expected.get(name) and not name.startswith(
            ("metrics", "overview", "report"))] + kept_files(self.watched())

    def _done(self) -> list[str]:
        """Results that the journal calls done."""
        path = self.world.path("results", JOURNAL)
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as file:
            names = re.findall(r'^\{"name": "([^"]+)".*\}$', file.read(), re.MULTILINE)  # of lines that are whole
        return [self.world.path("results", f"{name}.npz") for name in names]

    def after_start(self, shown):
        """Photos that were done are not done again."""
        again = [path for path, number in self._written.items() if os.stat(path).st_ino != number]
        self._written = {}
        return [f"reconstructed again: {path}" for path in again]

    def at_end(self):
        return differences(self._expected, self._results(self.world.path("results")))


PHASES = {kind.name: kind for kind in (Packing, Encoding, Rec, Render, Checkpoint, Export)}


# ---------------------------------------------------------------- the base world
def make_base(folder: str, run) -> SmallWorld:
    """The world that every phase copies: packed, with an undisturbed run of each stage.

    Args:
        folder: where it is, or will be.
        run: runs (script, arguments) to the end.
    """
    # What is kept in it has names that hold versions of the code.
    version = code_version("facegcn.training.texture_stage", "facegcn.photos.packing", "facegcn.assets.worlds")
    done = os.path.join(folder, f"done-{version}")
    world = SmallWorld(folder)
    if not os.path.exists(done):
        shutil.rmtree(folder)
        world = SmallWorld(folder)
        run("create_bin", world.flags())
        run("main", world.flags("--mode", "train", "--stage", "rec", "--suffix", "rec"))
        run("main", world.flags("--mode", "train", "--stage", "render", "--suffix", "render"))
        open(done, "w").close()
    return world
