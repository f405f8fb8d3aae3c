"""The folder of test mode's results: names, files of an earlier run, overview pages, the words at the end."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from facegcn.errors import PhotoError, UserError, log
from facegcn.files import digest, write_bytes, written_whole
from facegcn.photos.reading import read_image
from facegcn.reconstruction import evaluation
from facegcn.report import SHEET_WIDTH, contact_sheet, fitted, write_png

#: Endings of a photo's files: of all photos, and of some or on request.
USUAL = (".npz", "_input.png", "_mask.png", "_coarse.png", "_fine.png", "_coarse_overlay.png", "_fine_overlay.png",
         "_coarse.obj", "_fine.obj", "_fine.ply", "_fine.glb", "_albedo.png", "_albedo.obj", "_albedo.mtl",
         "_albedo.glb", "_lit.png", "_lit.obj", "_lit.mtl", "_lit.glb", "_visibility.png", "_confidence.png",
         "_pasted.png")
FURTHER = ("_rig.glb", "_animated.glb", "_views.png", "_turntable.gif", "_turntable.mp4", "_turntable.webm",
           "_weights.csv", "_overlay.mp4")
ENDINGS = USUAL + FURTHER  # none ends another, so that results of different names never share a file
_LONGEST = 180  # bytes of a name: with a number and an ending it stays below the 255 of file systems
_KEPT_OF_LONG = 150  # bytes of a longer one that are kept before its digest
_PROBE_BYTES = 32 << 20  # about what one photo's results take
JOURNAL = "results.jsonl"  # what was done, see ``journal.Journal``
PAGE_ROWS = 24  # photos of an overview page
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # of errors after which no other file can be written, either
_ROWS = ".overview"  # folder of the rows of an overview page that is not full
_PAGE = re.compile(r"overview(-\d+)?\.png")
_NPZ_LEVEL = 1  # of zlib: two fifths of the time of its usual 6, and noise of a face's arrays takes no less room with 6
_LISTED = 50  # lines that a list on the terminal has at most
_FIRST_NAMES = 3  # names out of a long list


# ---------------------------------------------------------------- names
def result_names(stems: Sequence[str], endings: Sequence[str] | None = None) -> list[str]:
    """A name for the results of each photo: its own, made safe, and distinct.

    Names that differ in case, or in how an accent is written, only are the same to some file systems, so they are
    the same here. Photos of one stem keep their ending; where that is not enough, they get a number.

    Args:
        stems: names of the photos.
        endings: of their files, such as ``.jpg``; default: none.

    Returns:
        names that ``files.check_name`` accepts.
    """
    endings = endings or [""] * len(stems)
    counts = Counter(_key(_safe(stem)) for stem in stems)
    names, taken = [], set()
    for stem, ending in zip(stems, endings):
        name, whole = _safe(stem), _safe(stem + ending)
        if counts[_key(name)] > 1:
            name = whole
        if _key(name) in taken:
            name, number = whole, 2
            while _key(name) in taken:
                name, number = f"{whole}-{number}", number + 1
        taken.add(_key(name))
        names.append(name)
    return names


def _safe(text: str) -> str:
    """The text without what a file's name cannot have: slashes, control signs, bytes that are no text, too much."""
    text = "".join("_" if letter in "/\\" or unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") else letter
                   for letter in text)
    if not text.strip("."):
        return "_" * max(1, len(text))
    if len(text.encode("utf-8")) > _LONGEST:
        return text.encode("utf-8")[:_KEPT_OF_LONG].decode("utf-8", "ignore") + "-" + digest(text)
    return text


def _key(name: str) -> str:
    """What two names share that are the same file to some systems (Unicode's canonical caseless match)."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def shown(text: str) -> str:
    """The text on one line, in letters that every terminal and file can hold; others as Python writes them."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


# ---------------------------------------------------------------- the folder
def prepare_output(folder: str, photos: str | None = None) -> None:
    """Makes the folder and makes sure that results can be written there.

    Args:
        folder: of the results.
        photos: file or folder of the photos; None = packed ones.

    Raises:
        UserError: it is the photos' own folder, has a folder of the journal's name, cannot be made or written to, or
            its disk is full.
    """
    if not folder:
        raise UserError("--output '' names no folder: give one, or leave the flag out")
    if os.path.isdir(journal := os.path.join(folder, JOURNAL)):
        raise UserError(f"{journal} is a folder, and a file of that name is to tell what was done: move it away, or "
                        "give another --output")
    if photos is not None and os.path.exists(folder):
        own = photos if os.path.isdir(photos) else os.path.dirname(os.path.abspath(photos))
        if os.path.samefile(folder, own):
            raise UserError(f"--output {folder} is the folder of the photos: give another, so that results never "
                            "overwrite photos")
    probe = os.path.join(folder, f".probe-{os.getpid()}")
    try:
        os.makedirs(folder, exist_ok=True)
        write_bytes(probe, bytes(_PROBE_BYTES))
        os.remove(probe)
    except OSError as error:
        raise UserError(f"--output {folder}: no results can be written there: {error.strerror}; "
                        "give another folder") from error


def forget_journal(folder: str) -> None:
    """Removes the journal of an earlier run and what that kept for one that goes on: what it tells of is about to be
    overwritten, and not photo by photo. Raises OSError where the journal cannot be removed."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(folder, JOURNAL))
    shutil.rmtree(os.path.join(folder, _ROWS), ignore_errors=True)


def write_arrays(path: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a photo's ``.npz``, whole, as ``np.savez_compressed`` would but faster.

    Raises:
        OSError: as ``files.written_whole``.
    """
    with written_whole(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED,
                                                         compresslevel=_NPZ_LEVEL) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def results_in(folder: str) -> dict[str, list[str]]:
    """Names of test mode's files in a folder, by photo: of photos that have at least an ``_input.png`` and ``.npz``."""
    there = set(os.listdir(folder))
    stems = [name.removesuffix("_input.png") for name in sorted(there) if name.endswith("_input.png")]
    return {stem: [stem + ending for ending in ENDINGS if stem + ending in there]
            for stem in stems if f"{stem}.npz" in there}


def without_results(paths: list[str]) -> list[str]:
    """Those of a folder's images that test mode did not write itself; says how many it did.

    Args:
        paths: of one folder.
    """
    folder = os.path.dirname(paths[0]) or "."
    ours = {name for names in results_in(folder).values() for name in names}
    if os.path.exists(os.path.join(folder, "metrics.json")):
        ours.update(name for name in os.listdir(folder) if _PAGE.fullmatch(name))
    photos = [path for path in paths if os.path.basename(path) not in ours]
    if len(photos) < len(paths):
        log.warning("%d pictures in %s are results of an earlier run and not taken for photos",
                    len(paths) - len(photos), shown(folder))
    return photos


class Overview:
    """``overview.png``, ``overview-2.png`` and so on: a row of pictures for each photo.

    Args:
        folder: where they go.
        headings: one text a column.
        pages: names of the photos on each page of an earlier run that stays.
        written: is told of each page: its number, its file and the names of its photos. With it, rows of a page that
            is not full are kept in a folder, for a run that goes on with it.
    """

    def __init__(self, folder: str, headings: Sequence[str], pages: Sequence[Sequence[str]] = (),
                 written: Callable[[int, str, list[str]], None] | None = None):
        self._folder, self._headings, self._rows = folder, headings, {}
        self._pages, self._written, self._places = len(pages), written, {}
        self._kept = os.path.join(folder, _ROWS)
        self._short = {f"{name}.png" for page in pages[-1:] if len(page) < PAGE_ROWS for name in page}
        self.count = sum(map(len, pages))

    def expect(self, names: Sequence[str]) -> None:
        """Takes the photos of a run in their order, which a page's rows have, whichever was done first."""
        self._places = {name: place for place, name in enumerate(names)}

    def keep(self, name: str, pictures: list[np.ndarray]) -> None:
        """Keeps a photo's row, which ``add`` will take, for a run that goes on. Raises OSError where nothing can be
        written any more."""
        if self._written is not None:
            try:
                write_png(self._kept_row(name), np.hstack([fitted(picture, SHEET_WIDTH) for picture in pictures]))
            except (OSError, UserError) as error:  # the latter where a file has the folder's name
                if getattr(error, "errno", None) in NO_ROOM:
                    raise
                log.debug("%s is not kept: %s", self._kept_row(name), error)  # then it is made of the photo's files

    def kept(self, name: str) -> list[np.ndarray]:
        """The row of a photo that an earlier run kept. Raises PhotoError where there is none, or it is another's."""
        row = read_image(self._kept_row(name))
        if row.shape[1] != len(self._headings) * SHEET_WIDTH:
            raise PhotoError(f"{self._kept_row(name)} is no row of this overview", "unreadable")
        return np.split(row, len(self._headings), axis=1)

    def _kept_row(self, name):
        return os.path.join(self._kept, f"{name}.png")

    def add(self, name: str, pictures: list[np.ndarray]) -> None:
        """Takes a photo's row; a full page is written at once."""
        self._rows[name] = pictures
        self.count += 1
        if len(self._rows) == PAGE_ROWS:
            self._write()

    def finish(self) -> None:
        """Writes the last page; pages of an earlier run that had more are removed."""
        if self._rows:
            self._write()
        known = {self._page(number) for number in range(self._pages)}
        for name in os.listdir(self._folder) if self._pages else ():
            if _PAGE.fullmatch(name) and name not in known:
                os.remove(os.path.join(self._folder, name))

    def tidy(self) -> None:
        """Removes kept rows that no run will go on with, at the end of one that has come to it."""
        if self._written is not None and os.path.isdir(self._kept):
            for name in set(os.listdir(self._kept)) - self._short:
                with contextlib.suppress(OSError):  # what another program put there stays
                    os.remove(os.path.join(self._kept, name))
            with contextlib.suppress(OSError):  # as long as anything is in it
                os.rmdir(self._kept)

    def _page(self, number: int) -> str:
        return f"overview-{number + 1}.png" if number else "overview.png"

    def _write(self):
        path = os.path.join(self._folder, self._page(self._pages))
        self._rows = dict(sorted(self._rows.items(), key=lambda row: self._places.get(row[0], 0)))
        contact_sheet(list(self._rows.values()), list(self._rows), path, headings=self._headings)
        if self._written is not None:
            self._written(self._pages, self._page(self._pages), list(self._rows))
        if len(self._rows) == PAGE_ROWS:
            for name in self._rows if self._written is not None else ():
                with contextlib.suppress(FileNotFoundError):
                    os.remove(self._kept_row(name))
        else:
            self._short = {f"{name}.png" for name in self._rows}
        self._rows = {}
        self._pages += 1

    def words(self) -> str:
        """Where to look, for the summary."""
        last = f" to {self._page(self._pages - 1)}" if self._pages > 1 else ""
        return f"{os.path.join(self._folder, self._page(0))}{last} ({self.count} photos)"


# ---------------------------------------------------------------- the end
def log_summary(rows: dict[str, dict], jobs, output: str, overview: Overview, further: Sequence[str] = ()) -> None:
    """The table of metrics, the reasons of photos without a result, where files are, what an earlier run left.

    Args:
        rows: metrics by name, see ``evaluation.write_metrics``.
        jobs: all ``jobs.Job`` of the run.
        output: folder of the results.
        overview: its pages.
        further: names of results of this run that are no photo's.
    """
    if not jobs:
        log.info("there was nothing to reconstruct")
        return
    if rows:
        log.info(evaluation.summary_table(rows, _LISTED))
    told = [job for job in jobs if job.message]
    for job in told[:_LISTED]:
        log.warning("%s: %s", job.name, job.message)
    if any(job.status == "failed" for job in jobs):
        log.warning("(--debug shows where a photo failed)")
    if len(told) > _LISTED:
        log.warning("... %d more reasons in metrics.csv", len(told) - _LISTED)
    written = [job.name for job in jobs if job.written]
    if len(told := Counter(job.status for job in jobs if job.status)) > 1:
        log.info("%s", ", ".join(f"{status}: {count}" for status, count in told.most_common()))
    if written:
        log.info("%d of %d written to %s; look at %s", len(written), len(jobs), output, overview.words())
    else:
        log.warning("nothing was written to %s: none of the %d photos could be used", output, len(jobs))
    left = {name: files for name, files in results_in(output).items() if name not in {*written, *further}}
    if left:
        names = ", ".join(shown(name) for name in list(left)[:_FIRST_NAMES])
        more = f" and {len(left) - _FIRST_NAMES} more" if len(left) > _FIRST_NAMES else ""
        log.warning("%d files of an earlier run are left in %s, of photos %s%s",
                    sum(map(len, left.values())), output, names, more)
