"""Runs the programs with a full or read-only disk under each folder that they write into.

    python -m tests.endurance.disks [--case train] [--folder results/disks]

Needs the right to mount (root): each folder in question becomes a small file system of its own. Every start must end
with exit code 2, one message that names a file or folder on that disk, no traceback, and all that was there before as
it was; or, where there was room enough, with 0. A table tells it, a line for each start.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from tests.endurance import programs

_PATIENCE = 900
_SIZES = (0, 4, 16, 64, 256, 1024, 2048)  # free KB, until a start ends well
READ_ONLY = "read-only"


class Case(NamedTuple):
    """A command, and a folder that lies on the small disk.

    Attributes:
        name: of the case.
        script, arguments: the command; ``{}`` stands for the world's folder.
        place: the folder.
        absent: patterns of files in the world that are removed before, so that they must be made.
        fine: whether it must end well on a read-only disk, because it needs to write nothing there; that alone is
            tried.
    """

    name: str
    script: str
    arguments: str
    place: str
    absent: tuple[str, ...] = ()
    fine: bool = False


_TEST = "--mode test --suffix render --output {}/results"
_TRAIN = "--mode train --stage"
CASES = (
    Case("pack crops", "create_bin", "--input {}/crops --out {}/packed/faces.bin", "packed"),
    Case("pack photos", "create_bin", "--photos {}/photos --out {}/packed/faces.bin", "packed"),
    Case("pack made", "create_bin", "--made --set demo_portraits=5", "data", ("data/portraits-*",)),
    Case("train rec", "main", f"{_TRAIN} rec --suffix new --set rec_steps=3 --set rec_photo_batch=0", "runs"),
    Case("train render", "main", f"{_TRAIN} render --suffix new --epoch 1", "runs"),
    Case("restore", "main", f"{_TRAIN} render --suffix render --restore --epoch 7 --root_dir {{}}/data", "runs"),
    Case("encode", "main", f"{_TRAIN} render --suffix new --set epoch=0", "data",
         ("data/*.encoding-*", "data/made-*")),
    Case("hierarchy", "main", f"{_TRAIN} render --suffix new --set epoch=0", "data", ("data/sampling-*",)),
    Case("train, data kept", "main", f"{_TRAIN} render --suffix new --epoch 1", "data", (), True),
    Case("test", "main", f"{_TEST} --texture 2048 --views", "results"),
    Case("layout", "main", f"{_TEST} --texture 1024", "data", ("data/texture-*",)),
    Case("test, data kept", "main", _TEST, "data", (), True),
    Case("test, runs kept", "main", _TEST, "runs", (), True),
    Case("temporary files", "main", f"{_TRAIN} render --suffix new --epoch 1", "tmp", (), True),
)


@contextlib.contextmanager
def small_disk(folder: str, free: int | str) -> Iterator[None]:
    """Puts a folder, with what is in it, on a file system of its own.

    Args:
        folder: there; afterwards it holds what the program left.
        free: KB that are left on it, or READ_ONLY.
    """
    kept = folder + "-kept"
    os.rename(folder, kept)
    os.mkdir(folder)
    used = sum(-(-os.path.getsize(os.path.join(root, name)) // 4096) * 4 + 4
               for root, inner, names in os.walk(kept) for name in names + inner)
    room = used + 64 + (0 if free == READ_ONLY else free)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}k", "tmpfs", folder], check=True)
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        if free == READ_ONLY:
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        else:
            _fill(folder, free)
        yield
        shutil.rmtree(kept)
        shutil.copytree(folder, kept)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        os.rmdir(folder)
        os.rename(kept, folder)


def may_mount() -> bool:
    """Whether this user may mount a file system here."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True, capture_output=True)
            subprocess.run(["umount", folder], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return False
    return True


def _fill(folder: str, free: int) -> None:
    """Leaves ``free`` KB on a disk."""
    found = os.statvfs(folder)
    surplus = found.f_bavail * found.f_frsize - free * 1024
    if surplus > 0:
        with open(os.path.join(folder, "filling"), "wb") as file:
            file.write(bytes(surplus))


def prepared(base, folder: str, case: Case):
    """A fresh copy of the base world, with what the cases need."""
    world = base.copied(folder)
    shutil.rmtree(world.path("crops"), ignore_errors=True)
    os.makedirs(world.path("crops"))
    made = sorted(glob.glob(world.path("data", "portraits-*", "*.png")))
    for path in made[:5]:
        shutil.copy(path, world.path("crops"))
    import skimage.data
    import skimage.io
    os.makedirs(world.path("photos"))
    skimage.io.imsave(world.path("photos", "astronaut.png"), skimage.data.astronaut())
    os.makedirs(world.path("packed"))
    for path in glob.glob(world.path("data", "faces.[brstv]*")):
        if ".encoding" not in path:
            shutil.copy(path, world.path("packed"))
    os.makedirs(world.path("results"))
    os.makedirs(world.path("tmp"))
    for pattern in case.absent:
        for path in glob.glob(world.path(pattern)):
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    return world


class Outcome(NamedTuple):
    """How a start ended; ``wrong`` is empty where all is as it should be."""

    case: str
    free: int | str
    code: int
    message: str
    wrong: list[str]


def tried(base, folder: str, case: Case, free: int | str) -> Outcome:
    """Starts a case on a disk with so much room."""
    from facegcn.reconstruction import results
    from tests.endurance.wholeness import contents, kept_files, names_seen

    world = prepared(base, folder, case)
    place, words = world.path(case.place), case.arguments.replace("{}", world.folder).split()
    before = contents([place])

    def prepare():
        if case.place == "tmp":
            os.environ["TMPDIR"] = tempfile.tempdir = place
        if case.place == "results":
            results._PROBE_BYTES = 1  # else it is full before the first photo, and nothing is tried

    with small_disk(place, free):
        program = programs.Program(case.script, world.flags(*words), world.path("shown.txt"), prepare)
        code = program.wait(_PATIENCE)
        after = contents([place])
        broken = kept_files([place])
        left = [name for name in names_seen([place]) if "partial" in os.path.basename(name)]
    shown = program.shown()
    said = [line for line in shown.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    wrong = []
    fine = case.fine and free == READ_ONLY
    if code not in ((0,) if fine else (0, 2)):
        wrong.append(f"exit code {code}")
    if free in (0, READ_ONLY) and code == 0 and not case.fine:
        wrong.append("it says that all is well")
    if code == 2 and len(said) != 1:
        wrong.append(f"{len(said)} messages")
    if code == 2 and said and place not in said[0]:
        wrong.append("the message names no place on that disk")
    if "Traceback" in shown:
        wrong.append("a traceback")
    growing = ("log.txt", "stats.jsonl", "tfevents")
    changed = [name for name, data in before.items() if after.get(name) != data
               and not any(word in name for word in growing)]
    if free == READ_ONLY or code == 2 and case.name.startswith("pack"):
        wrong += [f"changed: {name}" for name in changed]
    wrong += broken + [f"left over: {name}" for name in left]
    if wrong:
        wrong.append(shown[-1500:])
    return Outcome(case.name, free, code, said[0] if said else "", wrong)


def main(arguments=None) -> int:
    """Returns 0 when every start ended as it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="", help="only cases whose name holds this")
    parser.add_argument("--free", default="", help="only these KB of room, by commas")
    parser.add_argument("--folder", default=os.path.join("results", "disks"))
    args = parser.parse_args(arguments)
    folder = os.path.abspath(args.folder)
    os.makedirs(os.path.join(folder, "tmp"), exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = os.path.join(folder, "tmp")
    programs.load()
    from tests.endurance.kills import run
    from tests.endurance.phases import make_base

    base = make_base(os.path.join(folder, "base"), lambda *command: run(*command, os.path.join(folder, "base.txt")))
    bad = 0
    chosen = [READ_ONLY if word == READ_ONLY else int(word) for word in args.free.split(",") if word]
    for case in (case for case in CASES if args.case in case.name):
        for free in chosen or (READ_ONLY, *_SIZES):
            if case.fine and free != READ_ONLY:
                continue
            found = tried(base, os.path.join(folder, "world"), case, free)
            bad += bool(found.wrong)
            print(f"{found.case:>18} {str(found.free):>9} {found.code:>4}  {'WRONG' if found.wrong else 'right'}  "
                  f"{found.message[:150]}", *found.wrong, sep="\n      ", flush=True)
            if found.code == 0 and free != READ_ONLY:
                break
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
