"""One input: written, read as the program does, and judged."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
import traceback
import warnings
from collections.abc import Mapping
from random import Random
from typing import NamedTuple

import numpy as np

from facegcn.errors import UserError
from tests.fuzzing.changes import damaged

_LONGEST_MESSAGE = 5000  # signs: more is for nobody
Files = Mapping[str, bytes]  # an input: contents by name


class Case(NamedTuple):
    """An input.

    Attributes:
        files: contents by name.
        sealed: nothing was done to its checksums, so that an answer must be that of a sound input.
    """

    files: Files
    sealed: bool = False


class Reader:
    """How one kind of file is made, read and judged; the base of every ``readers.*.Reader``.

    Args:
        folder: for what the reader needs beside the inputs.

    Attributes:
        checksums: the format has checksums of all that it says.
        errors: how a file is refused.
    """

    checksums = False
    errors: tuple = (UserError,)

    def __init__(self, folder: str):
        self.folder = folder

    def seeds(self) -> list[Files]:
        """Sound inputs; the first is the usual one."""
        raise NotImplementedError

    def case(self, rng: Random, seeds: list[Files]) -> Case:
        """A changed input: one file's bytes."""
        files = rng.choice(seeds)
        name = rng.choice(list(files))
        others = [other[name] for other in seeds if name in other]
        return Case({**files, name: self.change(rng, name, files[name], others)}, self.checksums)

    def change(self, rng: Random, name: str, data: bytes, others: list[bytes]) -> bytes:
        """A changed file."""
        return damaged(rng, data, others)

    def read(self, folder: str):
        """The answer for the input in a folder; raises one of ``errors``."""
        raise NotImplementedError

    def wrong(self, answer) -> str:
        """What is wrong with an answer; "" = nothing."""
        return ""


class Outcome(NamedTuple):
    """What became of an input.

    Attributes:
        kind: ``refused``, ``accepted`` or ``failed``.
        text: the message, or what is wrong.
        seconds: that the reading took.
    """

    kind: str
    text: str
    seconds: float


class Judge:
    """Runs inputs of one reader, and compares with what it says of the sound ones.

    Args:
        reader: the reader.
        folder: where the inputs are put.
    """

    def __init__(self, reader: Reader, folder: str):
        self._reader, self._folder = reader, folder
        self.seeds, self._sound = reader.seeds(), []
        for files in self.seeds:
            place(folder, files)
            answer = reader.read(folder)
            assert not reader.wrong(answer), reader.wrong(answer)
            self._sound.append(answer)

    def case(self, seed: int, number: int) -> Case:
        """The same input for the same numbers, ever again."""
        return self._reader.case(Random(f"{seed} {number}"), self.seeds)

    def attempt(self, case: Case) -> Outcome:
        """Writes and reads an input; what the time or memory is too much for is the caller's to find out."""
        place(self._folder, case.files)
        begin = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = self._reader.read(self._folder)
        except self._reader.errors as error:
            text, seconds = str(error), time.perf_counter() - begin
            if len(text) > _LONGEST_MESSAGE:
                return Outcome("failed", f"a message of {len(text):,} signs: {text[:500]}", seconds)
            return Outcome("refused", text, seconds)
        except Exception as error:
            where = "".join(traceback.format_tb(error.__traceback__, limit=-6))
            return Outcome("failed", f"{type(error).__name__}: {error}\n{where}", time.perf_counter() - begin)
        seconds = time.perf_counter() - begin
        wrong = self._reader.wrong(answer)
        if not wrong and case.sealed and not any(same(answer, sound) for sound in self._sound):
            wrong = "accepted, and says other than the sound file"
        return Outcome("failed" if wrong else "accepted", wrong, seconds)


def place(folder: str, files: Files) -> None:
    """Makes a folder hold these files and no others."""
    os.makedirs(folder, exist_ok=True)
    kept = {name.split("/")[0] for name in files}
    for name in os.listdir(folder):
        if name not in kept:
            path = os.path.join(folder, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    for name, content in files.items():
        path = os.path.join(folder, name)
        if "/" in name:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)


def same(one, other) -> bool:
    """Whether two answers are equal, NaN to NaN."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        one, other = np.asarray(one), np.asarray(other)
        return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()
    if dataclasses.is_dataclass(one) and type(one) is type(other):
        return same(vars(one), vars(other))
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return isinstance(other, (list, tuple)) and len(one) == len(other) and all(map(same, one, other))
    return one == other or one != one and other != other
