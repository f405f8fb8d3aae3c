"""Files that are whole or not there, names that stay inside their folder, and keys of what is kept.

A file that is kept to save work carries in its name a digest of all that it depends on, ``code_version`` of the
code that makes it included, so that a stale one is never met; a broken one is made anew (``kept_npz``).
"""

from __future__ import annotations

import ast
import contextlib
import errno
import functools
import hashlib
import importlib.util
import itertools
import logging
import math
import os
import platform
import re
import shutil
import time
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from facegcn.archive_lists import check_all_listed
from facegcn.errors import BrokenFile, UserError

log = logging.getLogger("facegcn")

_NPZ_LIMIT = 64 << 30  # bytes an .npz may unpack to; a larger one is a mistake or a trap
_NPZ_RATIO = 2000  # unpacked size over file size; zlib reaches about 1000, constant arrays come near it
_KINDS = "biufUS"  # numbers and text, as NumPy calls them; dates, complex numbers and records are in no file of ours
_NAME_BYTES = 200  # of a name that endings are still added to; file systems end at 255
_REASON = 300  # signs of an error's own words that are passed on
_DIGITS = 12  # hexadecimal, of a key
_PARTIAL = ".partial-"  # begins the names of files that are being written
_FORMER = "former"  # in the name of a folder that makes room for a new one; its own name comes behind
_LEFTOVER = re.compile(re.escape(_PARTIAL) + rf"([0-9a-f]+)-(\d+)-(?:\d+-{_FORMER}-(.+))?")
_DAY = 86400.0  # seconds
_serial = itertools.count()


# ---------------------------------------------------------------- writing
@contextlib.contextmanager
def written_whole(path: str) -> Iterator[str]:
    """A temporary path in the same folder, which becomes ``path`` when the block ends well.

    The folder is made. The content is on the disk before the name appears, so that after a crash the file is the
    former one or the new one, whole. When the block fails, the former file stays and nothing else is left.

    Raises:
        UserError: its folder cannot be made.
        OSError: it cannot be written; with its name, or with that of another file that the block was busy with.
    """
    path = os.path.abspath(path)
    folder, name = os.path.split(path)
    # The ending stays: writers such as NumPy and Keras go by it.
    ending = ".weights.h5" if name.endswith(".weights.h5") else os.path.splitext(name)[1]
    make_folder(folder)
    remove_leftovers(folder)
    partial = _partial(folder) + ending[-20:]
    try:
        yield partial
        _sync(partial)
        os.replace(partial, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, partial):  # it tells of another file
            raise
        raise OSError(error.errno, os.strerror(error.errno), path) from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(partial)


@contextlib.contextmanager
def folder_written_whole(folder: str) -> Iterator[str]:
    """A temporary folder beside ``folder``, which takes its place when the block ends well.

    Raises:
        UserError: it cannot be made.
        OSError: it cannot take its place.
    """
    folder = os.path.abspath(folder)
    make_folder(os.path.dirname(folder))
    remove_leftovers(os.path.dirname(folder))
    partial = _partial(os.path.dirname(folder))
    former = f"{partial}-{_FORMER}-{os.path.basename(folder)}"
    try:
        make_folder(partial)
        yield partial
        if os.path.exists(folder):
            os.rename(folder, former)
        os.rename(partial, folder)
    finally:
        if os.path.exists(former) and not os.path.exists(folder):  # a stop came between the two
            os.rename(former, folder)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)


def _partial(folder: str) -> str:
    """A path that tells who writes it, and is nobody else's."""
    return os.path.join(folder, f"{_PARTIAL}{_place()}-{os.getpid()}-{next(_serial)}")


@functools.lru_cache(1024)  # once is enough: they are of programs that were killed before
def remove_leftovers(folder: str) -> None:
    """Removes what killed programs left half written in a folder.

    That is what has the number of a process of this machine that runs no more, or has not changed for a day. A folder
    whose successor had not yet taken its place gets its name back.
    """
    with contextlib.suppress(OSError):  # another program is quicker, or may more than this one
        for entry in os.scandir(folder):
            found = _LEFTOVER.match(entry.name)
            if found and (found[1] == _place() and not _runs(found[2]) or time.time() - entry.stat().st_mtime > _DAY):
                if found[3] and not os.path.exists(os.path.join(folder, found[3])):
                    os.rename(entry.path, os.path.join(folder, found[3]))
                    continue
                shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.remove(entry.path)


@functools.cache
def _place() -> str:
    """Digest of where process numbers mean the same: machines and containers may share a folder."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return digest(platform.node(), space)


def _runs(process: str) -> bool:
    """Whether a process of this machine runs; where the system does not tell, it does."""
    return os.path.exists(f"/proc/{process}") or not os.path.exists(f"/proc/{os.getpid()}")


def make_folder(folder: str) -> None:
    """Makes a folder where there is none.

    Raises:
        UserError: it cannot be made.
    """
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made: {error.strerror}") from error


def check_writable(path: str) -> None:
    """Finds out that no file can be written at ``path`` now, and not after an hour of work.

    Raises:
        UserError: it is a folder, or its folder cannot be made or written into.
    """
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder: name a file in it")
    folder = os.path.dirname(os.path.abspath(path))
    make_folder(folder)
    partial = _partial(folder)
    try:
        with open(partial, "wb") as file:
            file.write(b"\0")
        os.remove(partial)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def require_room(path: str, size: int) -> None:
    """For writers that a full disk makes talk of themselves, as HDF5 does: finds out before that there is room.

    Args:
        path: to be written; its folder is there.
        size: of the file, bytes, about.

    Raises:
        OSError: there is less room.
    """
    if shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def _sync(path: str) -> None:
    """Waits until a file's content is on the disk. Its name may come later: a crash then leaves the former file."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str, text: str) -> None:
    """Writes a UTF-8 text file whole. Raises OSError as ``written_whole``."""
    with written_whole(path) as partial, open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def append_line(path: str, line: str) -> None:
    """Adds a line to a UTF-8 text file at once; a crash may cut it short. Raises OSError with the file's name."""
    try:
        with open(path, "a", encoding="utf-8", newline="\n") as file:
            file.write(line + "\n")
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno), path) from error


def write_bytes(path: str, data: bytes) -> None:
    """Writes a file whole. Raises OSError as ``written_whole``."""
    with written_whole(path) as partial, open(partial, "wb") as file:
        file.write(data)


def write_npz(path: str, arrays: Mapping[str, np.ndarray], compressed: bool = True) -> None:
    """Writes an ``.npz`` whole. Raises OSError as ``written_whole``."""
    with written_whole(path) as partial:
        (np.savez_compressed if compressed else np.savez)(partial, **arrays)


# ---------------------------------------------------------------- reading
def read_npz(path: str, names=None) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz``; never unpickles, never unpacks more than the file can honestly hold.

    Args:
        path: the file.
        names: arrays that must be in it; those alone are read. None reads all.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFile: it is no whole ``.npz``, lacks an array, or unpacks to an impossible size.
    """
    headers = npz_headers(path)
    missing = [name for name in names or () if name not in headers]
    if missing:
        raise BrokenFile(path, f"lacks the arrays {', '.join(missing)}")
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: _native(data[name]) for name in (headers if names is None else names)}
    except Exception as error:
        raise _no_npz(path, error) from error


def _native(array: np.ndarray) -> np.ndarray:
    """The array in this machine's byte order, the only one that most libraries take."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def finite_as_float32(array: np.ndarray) -> bool:
    """Whether all numbers of an array are finite in single precision."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(array.astype(np.float32, copy=False)).all())


def npz_headers(path: str) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """(shape, dtype) of each array of an ``.npz``, without reading its numbers.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFile: it is no ``.npz`` of plain arrays, or an array says that it is larger than it can be.
    """
    size = os.path.getsize(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            unpacked = sum(entry.file_size for entry in entries)
            if unpacked > min(_NPZ_LIMIT, _NPZ_RATIO * size + (1 << 20)):
                raise BrokenFile(path, f"unpacks to {unpacked:,} bytes from {size:,}: no file of ours does")
            check_all_listed(path, archive)
            return {entry.filename.removesuffix(".npy"): _npy_header(path, archive, entry) for entry in entries}
    except BrokenFile:
        raise
    except Exception as error:
        raise _no_npz(path, error) from error


def _npy_header(path, archive, entry):
    """(shape, dtype) of one entry, whose length must be what they take: NumPy reserves that before it reads."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        taken = file.tell() + math.prod(shape) * dtype.itemsize
    # What takes no byte may say that there are any number of it.
    if dtype.kind not in _KINDS or not dtype.itemsize or min(shape, default=0) < 0 or taken != entry.file_size:
        raise BrokenFile(path, f"the entry {entry.filename} is no whole array of numbers or text: {dtype} {shape} in "
                               f"{entry.file_size:,} bytes")
    return shape, dtype


def _no_npz(path: str, error: Exception) -> BrokenFile:
    """For whatever was raised: zip, zlib, lzma, tokenizer and NumPy each have their own ways to give up, some with
    all that they could not read."""
    return BrokenFile(path, f"is no whole .npz of arrays: {brief(error)}")


def brief(error: Exception) -> str:
    """An error's own words for a message; some libraries say all that they could not read."""
    text = str(error)
    return text if len(text) <= _REASON else f"{text[:_REASON]}..."


def kept_npz(path: str, names, make: Callable[[], Mapping[str, np.ndarray]], what: str,
             compressed: bool = True) -> dict[str, np.ndarray]:
    """Arrays that are kept in a file to save work: read, or made and written.

    Args:
        path: ``.npz``; its name must hold a digest of all that the arrays depend on.
        names: of the arrays.
        make: makes them.
        what: what they are, for the message "making WHAT: PATH".
        compressed: whether the file is.
    """
    if os.path.exists(path):
        try:
            return read_npz(path, names)
        except BrokenFile as error:
            log.warning("%s is damaged (%s); it is made anew", path, error.reason)
    log.info("making %s: %s", what, path)
    arrays = dict(make())
    write_npz(path, arrays, compressed)
    return arrays


# ---------------------------------------------------------------- keys
def digest(*values) -> str:
    """Twelve hexadecimal digits that change when any of the arrays, texts or numbers changes."""
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            value = np.ascontiguousarray(value)
            found.update(f"array {value.dtype} {value.shape}".encode())
            found.update(value.reshape(-1).view(np.uint8))
        else:
            found.update(f"{type(value).__name__} {value!r}".encode())
        found.update(b"\0")
    return found.hexdigest()[:_DIGITS]


@functools.cache
def code_version(*modules: str) -> str:
    """Digest of modules of this package and of all of it that they import, directly or not.

    Comments, docstrings and layout do not count: only what is computed.

    Args:
        modules: dotted names, such as ``facegcn.demo.face``. A root module, such as ``mesh_sampling``, counts
            without what it imports: its command line imports much that its work does not depend on.
    """
    found, waiting = {}, list(modules)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        tree = _code(name)
        found[name] = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
        for node in ast.walk(tree) if name.split(".")[0] == "facegcn" else ():
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "facegcn":
                inner = (f"{node.module}.{alias.name}" for alias in node.names)
                waiting += [node.module, *(module for module in inner if importlib.util.find_spec(module))] \
                    if _is_package(node.module) else [node.module]
    return digest(*sorted(found.items()))


def _is_package(module: str) -> bool:
    return importlib.util.find_spec(module).submodule_search_locations is not None


def _code(module: str) -> ast.Module:
    """A module's syntax tree without its docstrings."""
    with open(importlib.util.find_spec(module).origin, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) \
                and ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Pass()
    return tree


# ---------------------------------------------------------------- names
def check_name(name: str, what: str = "the name") -> str:
    """The name itself, when a file can be called so, and stays in its folder, on every system.

    Args:
        name: to be tried.
        what: how the message calls it.

    Raises:
        UserError: it is empty or too long, has a path's signs, line breaks or other control characters, or is no
            text that UTF-8 can hold.
    """
    shown = name.encode("utf-8", "backslashreplace").decode()
    shown = shown if len(shown) <= _NAME_BYTES else f"{shown[:40]}..."
    if not name or name in (".", ".."):
        raise UserError(f"{what} is {shown!r}: it must say something")
    if any(sign in name for sign in "/\\") or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise UserError(f"{what} {shown!r} has a slash, a line break or letters that are no text: rename it")
    if len(name.encode("utf-8")) > _NAME_BYTES:
        raise UserError(f"{what} {shown!r} has {len(name.encode('utf-8'))} bytes, more than {_NAME_BYTES}: "
                        "shorten it, since endings are added")
    return name


def listed(folder: str, pattern: Callable[[str], bool]) -> list[str]:
    """Paths in a folder whose name ``pattern`` accepts, sorted; [] where there is no such folder."""
    if not os.path.isdir(folder):
        return []
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if pattern(name)]
