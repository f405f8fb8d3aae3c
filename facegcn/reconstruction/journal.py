"""What test mode has done in a folder of results, photo by photo, so that a second start does only what is missing.

``results.jsonl`` begins with a key of all that results depend on besides their photo; then comes a line for each photo
whose results are whole or that cannot be used, and one for each page of the overview. A line is written when the files
it tells of are on the disk; one that was cut short by a crash is passed over. Of several lines the last one holds, and
a page shows its photos as the lines before its own tell of them.

A run that goes on also notes which photos it begins and leaves. Those that are under way when the program crashes, or
twice when it is killed, may be why: the next run takes them alone, after all others. A crash writes its traceback into
the journal (``faulthandler``), so that it is told from a kill, and a photo that was alone at a crash is passed over.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import faulthandler
import glob
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np

from facegcn.config import PROJECT
from facegcn.errors import UserError, log
from facegcn.files import append_line, digest, write_text
from facegcn.reconstruction.jobs import Job
from facegcn.reconstruction.results import ENDINGS, JOURNAL, PAGE_ROWS

#: Settings that no result depends on, or whose files are known by their content.
_WITHOUT_EFFECT = ("test_batch_size", "workers", "root_dir", "runs_dir", "name", "suffix")
#: Types of what a line has.
_OF_PHOTO = {"name": str, "photo": list, "status": str, "message": str, "metrics": dict, "files": dict}
_OF_PAGE = {"page": int, "names": list, "files": dict}
_OF_BEGINNING = {"begun": str, "photo": list, "alone": bool}
_CRASH = "Fatal Python error"  # begins what ``faulthandler`` writes
_DEADLY = "the program crashed while only this photo was under way: save it anew; without --resume it is tried again"


def key_of(config, face_model, regressor: str, *choices) -> str:
    """What changes when a result might: settings, face model, weights, version of the program.

    Args:
        config: facegcn.config.Config.
        face_model: with all weights loaded.
        regressor: digest of its regressor.
        choices: what else the user chose, as texts, numbers or arrays.
    """
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name not in _WITHOUT_EFFECT}
    return digest(json.dumps(settings, sort_keys=True, default=str), face_model.morphable.digest, _program(),
                  regressor, *choices, *_weights(face_model.texture_network), *_weights(face_model.facenet))


def _weights(network):
    """All that a network depends on, as arrays or a text."""
    if network is None or hasattr(network, "digest"):
        return [getattr(network, "digest", "none")]
    return [np.asarray(weight) for weight in network.weights]


def _program() -> str:
    """Digest of this package's modules, and of the scripts beside it."""
    modules = [*glob.glob(os.path.join(PROJECT, "*.py")),
               *glob.glob(os.path.join(PROJECT, "facegcn", "**", "*.py"), recursive=True)]
    found = hashlib.sha256()
    for module in sorted(modules):
        with open(module, "rb") as file:
            found.update(file.read())
    return found.hexdigest()


class Journal:
    """The journal of a folder.

    Args:
        folder: of the results; there.
        key: of ``key_of``.
        jobs: of the run. With ``resume`` those whose results are whole, made with this key and of the same photo, get
            status, message and metrics as they had; so do photos that could not be used. Those that may have ended
            an earlier run become suspects, or failed.
        resume: goes on with a journal that is there; else ``begin`` makes a new one, which still knows the photos that
            were done with the same key: until they are made anew, their results are what they would become.

    Raises:
        UserError: ``resume``, and the journal that is there has another key; or it cannot be read.

    Attributes:
        pages: names of the photos on each page of the overview that can stay.
    """

    def __init__(self, folder: str, key: str, jobs: Sequence[Job] = (), resume: bool = False):
        self._folder, self._path, self._lock = folder, os.path.join(folder, JOURNAL), threading.Lock()
        self._first: list[dict] | None = None  # lines of a journal that has not begun
        self._crashes: BinaryIO | None = None
        self._mend = ""
        self.pages: list[list[str]] = []
        lines = self._former()
        same = bool(lines) and lines[0].get("key") == key
        if not resume:
            self._first = [{"key": key}, *(_last_of_each(lines) if same else ())]
            if done := sum(_fits(line, _OF_PHOTO) for line in self._first):
                log.info("%d photos of an earlier run in %s are made anew; --resume would keep what is whole", done,
                         folder)
        elif same:
            append_line(self._path, "")  # ends a line that was cut short
            self._restore(jobs, lines)
            self._hint({"started": True})
            self._listen()
        elif lines:
            raise UserError(f"--resume: the results in {self._folder} were made with other settings or weights, or by "
                            "another version of the program: give the same flags as before, or leave --resume out to "
                            "make all of them anew")
        else:
            log.info("--resume: %s has no results of photos to go on from; all are made", self._folder)
            self._first = [{"key": key}]

    def _former(self) -> list[dict]:
        """Lines of the journal that is there; none where there is none."""
        try:
            return list(_lines(self._path))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self._path} cannot be read: {error.strerror}; it tells what was done in this folder: "
                            "move it away, or give another --output") from error

    def begin(self) -> None:
        """Takes the place of the journal that is there: to be called before the first of the results it tells of is
        overwritten, and not before that, since a start that makes nothing must cost nothing. Raises OSError where it
        cannot be written."""
        with self._lock:
            self._begin()

    def _begin(self) -> None:
        if self._first is None:
            return
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in self._first))
        self._first = None
        self._listen()

    def _listen(self) -> None:
        """Has crashes of the program noted here, where nobody else has asked for them."""
        if not faulthandler.is_enabled():
            with contextlib.suppress(OSError):
                self._crashes = open(self._path, "ab", buffering=0)
                faulthandler.enable(self._crashes)

    def _restore(self, jobs, lines) -> None:
        """Gives jobs what the journal says of them, where that still holds."""
        said = {line["name"]: (at, line) for at, line in enumerate(lines) if _fits(line, _OF_PHOTO)}
        with os.scandir(self._folder) as entries:
            sizes = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        for job in jobs:
            _, line = said.get(job.name, (0, None))
            if line and line["photo"] == job.stamp and _whole(line["files"], sizes) \
                    and line["files"].keys() <= {job.name + ending for ending in ENDINGS}:
                job.status, job.message, job.metrics = line["status"], line["message"], line["metrics"]
                job.written = bool(line["files"])
        kept = {job.name for job in jobs if job.written}
        suspects, deadly = _suspicions(lines)
        for job in jobs:
            photo = _photo(job.name, job.stamp)
            if not job.status and photo in deadly:
                job.status, job.message = "failed", _DEADLY
                self.add(job)
            elif not job.status:
                job.suspect = photo in suspects
        pages = {line["page"]: (at, line) for at, line in enumerate(lines) if _fits(line, _OF_PAGE)}
        for number in range(len(pages)):
            at, line = pages.get(number, (0, None))
            names = [] if line is None else list(map(str, line["names"]))
            if line is None or not kept.issuperset(names) or not _whole(line["files"], sizes) \
                    or any(said[name][0] > at for name in names):  # it shows what a photo was before
                break
            self.pages.append(names)
            kept.difference_update(names)  # on a later page they are of another run
        if self.pages and len(self.pages[-1]) < PAGE_ROWS and (kept or not all(job.status for job in jobs)):
            self.pages.pop()  # there is more to come on it
        log.info("--resume: %d of %d photos are done", sum(bool(job.status) for job in jobs), len(jobs))
        if suspects := sum(job.suspect for job in jobs):
            log.info("%d photos were under way when earlier runs died: they come last, one at a time", suspects)

    def off_page(self, jobs: Iterable[Job]) -> list[Job]:
        """Jobs that an earlier run wrote and that are on none of ``pages``."""
        paged = {name for page in self.pages for name in page}
        return [job for job in jobs if job.written and job.name not in paged]

    def add(self, job: Job) -> None:
        """Notes a photo that is done. Raises OSError where it cannot be written."""
        if not job.path:
            return
        there = [job.name + ending for ending in ENDINGS] if job.written else []
        line = {"name": job.name, "photo": job.stamp, "status": job.status, "message": job.message,
                "metrics": {name: float(value) if isinstance(value, np.generic) else value
                            for name, value in job.metrics.items()}, "files": self._sizes(there)}
        with self._lock:
            if not job.written and self._first is not None:  # nothing is overwritten yet
                self._first.append(line)
                return
        self._write(line)

    def note_begun(self, job: Job) -> None:
        """Notes that a photo is about to be loaded."""
        with contextlib.suppress(OSError):  # it only costs a hint
            self._write({"begun": job.name, "photo": job.stamp, "alone": job.suspect})

    def note_left(self, job: Job) -> None:
        """Notes that a photo of which no line was added is no longer under way."""
        self._hint({"left": job.name})

    def note_end(self) -> None:
        """Notes that the run ends by itself, whatever is under way."""
        self._hint({"ended": True})
        if self._crashes is not None:
            faulthandler.disable()
            self._crashes.close()

    def _hint(self, line) -> None:
        if self._first is None:  # else there is no beginning that it could belong to
            with contextlib.suppress(OSError):
                self._write(line)

    def add_page(self, number: int, file: str, names: Iterable[str]) -> None:
        """Notes a page of the overview and the photos on it. Raises OSError where it cannot be written."""
        self._write({"page": number, "names": list(names), "files": self._sizes([file])})

    def _sizes(self, names) -> dict[str, int]:
        """Sizes of those files that are there."""
        found = {}
        for name in names:
            path = os.path.join(self._folder, name)
            if os.path.isfile(path):
                found[name] = os.path.getsize(path)
        return found

    def _write(self, line) -> None:
        with self._lock:
            self._begin()
            try:
                append_line(self._path, self._mend + json.dumps(line))
            except OSError:
                self._mend = "\n"  # it may have been cut short
                raise
            self._mend = ""


def _lines(path) -> Iterator[dict]:
    """The whole lines of a journal."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            if text.startswith(_CRASH):
                yield {"crash": text}
                continue
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(line, dict):
                yield line


def _last_of_each(lines) -> list[dict]:
    """Of the lines of each photo and page the last one, which is what holds; in the order of these."""
    found = {}
    for line in lines:
        for kinds, name in ((_OF_PHOTO, "name"), (_OF_PAGE, "page")):
            if _fits(line, kinds):
                found.pop((name, line[name]), None)
                found[name, line[name]] = line
                break
    return list(found.values())


def _suspicions(lines) -> tuple[set, set]:
    """Photos that may have ended a run, as ``_photo`` names them: those that come last, and those that surely did.

    The first kind was under way at a crash, or at two ends that nobody announced, and not done or left since; the
    second was alone at a crash.
    """
    under_way, deaths, suspects, deadly = {}, collections.Counter(), set(), set()
    for line in (*lines, {"started": True}):
        if _fits(line, _OF_BEGINNING):
            under_way[_photo(line["begun"], line["photo"])] = line["alone"]
        elif "crash" in line:
            suspects.update(under_way)
            deadly.update(photo for photo, alone in under_way.items() if alone)
            under_way = {}
        elif "started" in line:
            deaths.update(under_way.keys())
            suspects.update(photo for photo in under_way if deaths[photo] > 1)
            under_way = {}
        elif "ended" in line:
            under_way = {}
        elif isinstance(name := line.get("name", line.get("left")), str):
            for photo in {photo for photo in (*under_way, *deaths, *suspects) if photo[0] == name}:
                under_way.pop(photo, None)
                deaths.pop(photo, None)
                suspects.discard(photo)
                deadly.discard(photo)
    return suspects, deadly


def _photo(name, stamp) -> tuple[str, str]:
    return name, json.dumps(stamp)


def _fits(line, kinds) -> bool:
    return all(isinstance(line.get(name), kind) for name, kind in kinds.items())


def _whole(files, sizes) -> bool:
    """Whether files of a line are there at their length."""
    return all(sizes.get(name) == size for name, size in files.items())
