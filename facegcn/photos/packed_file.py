"""The packed image file (``.bin``): a header, then uint8 RGBA records of one size; and the one file beside it.

Header, 64 bytes, little endian: magic ``FACEGCN\\0``, version (uint32), image count (uint64),
height, width, channels (uint32 each), dtype name (8 bytes of ASCII), identity (16 bytes), zeros. Record i starts
at byte 64 + i * height * width * channels, so a rejected image never shifts another one.

Beside ``faces.bin`` stands ``faces.records.npz`` with all that belongs to its records: see ``Records``. The identity
is a digest of the records' names and checksums and stands in both files, so that they are never taken for each
other's when one was changed; a record's checksum is tried whenever it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import threading
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from facegcn.backends import record_kernels
from facegcn.errors import BinFileError, BrokenFile, UserError
from facegcn.files import check_name, read_npz, write_npz, written_whole
from facegcn.landmarks import known_dense
from facegcn.photos.buffers import Buffers

MAGIC = b"FACEGCN\0"
VERSION = 2  # 1 was without dense landmarks
HEADER_BYTES = 64
_LAYOUT = struct.Struct("<8sIQIII8s16s8s")
_IDENTITY_BYTES = 16
_TOGETHER = 32  # records whose checksums are tried by one call
_POINT_SHAPES = {"points": (5, 2), "landmarks": (68, 2), "dense": (468, 3)}
_AGAIN = "make both again with create_bin.py"

SPLIT_NAMES = ("train", "val", "test")


class Header(NamedTuple):
    """What a packed file holds: image count, height and width in pixels, channels, and its identity."""

    count: int
    height: int
    width: int
    channels: int
    identity: bytes = bytes(_IDENTITY_BYTES)

    @property
    def record_bytes(self) -> int:
        """Bytes of one image."""
        return self.height * self.width * self.channels

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        return self.height, self.width, self.channels


@dataclass
class Records:
    """All that belongs to the M records of a packed file.

    Attributes:
        names: of the records, in order, unique; each can name a file.
        splits: record indices, int64, by ``train``, ``val`` and ``test``; () puts all into ``train``.
        points: (M, 5, 2) float32 alignment points in pixels, NaN where unknown; None = all unknown.
        landmarks: (M, 68, 2) float32 iBUG points likewise.
        dense: (M, 468, 3) float32 dense landmarks, x and y in pixels and trust in [0, 1]; NaN, NaN and 0 where unknown.
        truth_folder: where made portraits among them have their truth, NAME.npz; "" = there are none.
    """

    names: list[str]
    splits: dict[str, np.ndarray] = field(default_factory=dict)
    points: np.ndarray | None = None
    landmarks: np.ndarray | None = None
    truth_folder: str = ""
    dense: np.ndarray | None = None

    def __post_init__(self):
        count = len(self.names)
        everything = {"train": np.arange(count)} if not self.splits else self.splits
        self.splits = {part: np.asarray(everything.get(part, ()), np.int64) for part in SPLIT_NAMES}
        if self.dense is None:
            self.dense = np.tile(known_dense(None), (count, 1, 1))
        for name, shape in _POINT_SHAPES.items():
            known = getattr(self, name)
            known = np.full((count, *shape), np.nan, np.float32) if known is None else np.asarray(known, np.float32)
            setattr(self, name, known)

    def mistake(self) -> str:
        """What does not fit together, "" when all does."""
        count = len(self.names)
        for name, shape in _POINT_SHAPES.items():
            if getattr(self, name).shape != (count, *shape):
                return f"{name} of shape {getattr(self, name).shape} for {count:,} images"
        rows = np.concatenate([self.splits[part] for part in SPLIT_NAMES])
        if not np.array_equal(np.sort(rows), np.arange(count)):
            return f"lists of {len(rows):,} images that do not hold each of {count:,} once"
        if len(set(self.names)) != count:
            return "a name twice"
        return ""


def companion(path: str, ending: str = "records.npz") -> str:
    """Path of a file beside the packed file: ``faces.bin``, ``sheet.png`` -> ``faces.sheet.png``."""
    return f"{os.path.splitext(path)[0]}.{ending}"


# ---------------------------------------------------------------- writing
def write_bin(path: str, names: Sequence[str] | None, images: Iterable,
              describe: Callable[[list[str]], Records] = Records) -> Records:
    """Packs images, and writes what belongs to them beside; nothing appears before both files are whole.

    Args:
        path: the ``.bin`` file; its folder is made.
        names: one name per image, unique. None when ``images`` yields (name, image) pairs.
        images: uint8 (H, W, 4) arrays of one shape, in the order of the names. May be lazy; what it raises goes
            through unchanged.
        describe: called with the names when all images are written; gives what else belongs to them.

    Returns:
        what belongs to the records.

    Raises:
        BinFileError: no image, not one name per image, a name twice or one that no file can have, another shape or
            dtype than the first image's (both are named), or a description that does not fit.
        OSError: a file cannot be written.
    """
    pairs = images if names is None else _paired(path, names, images)
    # The one beside takes its place last: between the two moments neither is taken for the other's.
    with written_whole(companion(path)) as beside, written_whole(path) as partial:
        written, checksums = [], []
        with open(partial, "wb") as file:
            file.write(bytes(HEADER_BYTES))
            shape = _write_records(path, file, pairs, written, checksums)
            checksums = np.array(checksums, np.uint32)
            identity = _identity(written, checksums)
            file.seek(0)
            file.write(_LAYOUT.pack(MAGIC, VERSION, len(written), *shape, b"uint8", identity, bytes(8)))
        records = describe(written)
        if records.names != written or records.mistake():
            raise _unwritten(path, records.mistake() or "other names than the images'")
        # Numbers that measurements gave shrink by a fifth and would take longer to unpack than all else.
        write_npz(beside, _arrays(path, records, checksums, identity), compressed=False)
    return records


def _paired(path, names, images) -> Iterator[tuple[str, np.ndarray]]:
    absent = object()
    for name, image in zip_longest(names, images, fillvalue=absent):
        if name is absent or image is absent:
            raise _unwritten(path, f"there are {'fewer' if name is absent else 'more'} names than images")
        yield name, image


def _write_records(path, file, pairs, written: list[str], checksums: list[int]) -> tuple[int, ...]:
    """Appends the images, fills the lists with their names and checksums; returns the shape they share."""
    shape, known = None, set()
    for name, image in pairs:
        image = np.asarray(image)
        try:
            check_name(name, "the name of a record")
        except UserError as error:
            raise _unwritten(path, str(error)) from error
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 4 or not image.size:
            raise _unwritten(path, f"'{name}' must be uint8 (H, W, 4), got {image.dtype} {image.shape}")
        shape = shape or image.shape
        if image.shape != shape:
            raise _unwritten(path, f"'{name}' has shape {image.shape}, the first image {shape}")
        if name in known:
            raise _unwritten(path, f"the name '{name}' occurs twice")
        known.add(name)
        written.append(name)
        record = np.ascontiguousarray(image).data
        checksums.append(zlib.crc32(record))
        file.write(record)
    if shape is None:
        raise _unwritten(path, "there is no image to pack")
    return shape


def _unwritten(path, reason) -> BinFileError:
    return BinFileError(f"{path} was not written: {reason}")


def _arrays(path, records: Records, checksums, identity) -> dict[str, np.ndarray]:
    """The arrays of the file beside; texts as UTF-8, names one a line."""
    folder = records.truth_folder and os.path.relpath(records.truth_folder, os.path.dirname(os.path.abspath(path)))
    return {"identity": np.frombuffer(identity, np.uint8), "checksums": checksums,
            "names": _text_array("\n".join(records.names)), **records.splits,
            **{name: getattr(records, name) for name in _POINT_SHAPES}, "truth_folder": _text_array(folder)}


def _text_array(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)


def _identity(names, checksums) -> bytes:
    """Sixteen bytes that differ for other images, another order or other names."""
    lines = "\n".join(names).encode()
    return hashlib.sha256(np.asarray(checksums, "<u4").tobytes() + lines).digest()[:_IDENTITY_BYTES]


# ---------------------------------------------------------------- reading
def read_header(path: str) -> Header:
    """Reads and checks the header, and the file's length against the image count.

    Raises:
        BinFileError: the file is absent, no packed file, of a newer version, or cut short.
    """
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            head = file.read(HEADER_BYTES)
    except OSError as error:
        raise BinFileError(f"cannot read the packed images {path}: {error.strerror}; "
                           "make the file with create_bin.py") from error
    if len(head) < HEADER_BYTES or not head.startswith(MAGIC):
        raise BinFileError(f"{path} is not a packed image file of this project (its first bytes differ); "
                           "the released code's headerless layout is converted with "
                           "create_bin.py --legacy-float32 FILE")
    _, version, count, height, width, channels, dtype, identity, rest = _LAYOUT.unpack_from(head)
    dtype = dtype.rstrip(b"\0").decode("ascii", "replace")
    if version != VERSION or dtype != "uint8" or any(rest):
        raise BinFileError(f"{path} has version {version} and dtype {dtype}; "
                           f"this program reads version {VERSION}, uint8: make it again with create_bin.py")
    header = Header(count, height, width, channels, identity)
    expected = HEADER_BYTES + count * header.record_bytes
    if size != expected or not count * header.record_bytes:
        raise BinFileError(f"{path} is {'too long' if size > expected else 'cut short'}: {size:,} bytes, but "
                           f"{count:,} images of {height} x {width} x {channels} need {expected:,}; "
                           "make it again with create_bin.py")
    return header


def read_companion(path: str) -> Records:
    """What belongs to the records of the packed file ``path``.

    Raises:
        BinFileError: as ``read_header``; the file beside it is absent, damaged, or another packed file's.
    """
    header = read_header(path)
    arrays = _beside(path, header, (*SPLIT_NAMES, *_POINT_SHAPES, "truth_folder"))
    try:
        folder = bytes(arrays["truth_folder"]).decode("utf-8", "surrogateescape")
        records = Records(arrays["names"], {part: arrays[part] for part in SPLIT_NAMES}, arrays["points"],
                          arrays["landmarks"], folder and os.path.normpath(os.path.join(os.path.dirname(path), folder)),
                          arrays["dense"])
        mistake = records.mistake()
        for name in records.names:
            check_name(name, "the name of a record")
    except (ValueError, TypeError, UserError) as error:
        raise BinFileError(f"{companion(path)} is damaged ({error}); {_AGAIN}") from error
    if mistake:
        raise BinFileError(f"{companion(path)} holds {mistake}; {_AGAIN}")
    return records


def _beside(path: str, header: Header, extra=()) -> dict:
    """Names, checksums and ``extra`` arrays of the file beside, when it belongs to this header.

    Raises:
        BinFileError: absent, damaged, or another packed file's.
    """
    source = companion(path)
    try:
        arrays = read_npz(source, ("identity", "checksums", "names", *extra))
        names = bytes(arrays["names"]).decode().split("\n")
        checksums = np.asarray(arrays["checksums"], np.uint32)
    except FileNotFoundError as error:
        raise BinFileError(f"{source} is not there: it holds the names, lists and points of {path} and goes wherever "
                           f"that goes; {_AGAIN}") from error
    except BrokenFile as error:
        raise BinFileError(f"{source} is damaged ({error.reason}); {_AGAIN}") from error
    except (ValueError, TypeError) as error:
        raise BinFileError(f"{source} is damaged ({error}); {_AGAIN}") from error
    if len(names) != header.count or checksums.shape != (header.count,) \
            or not header.identity == bytes(arrays["identity"]) == _identity(names, checksums):
        raise BinFileError(f"{path} and {source} do not belong together: one of them was changed or replaced; {_AGAIN}")
    return {**arrays, "names": names, "checksums": checksums}


def verify(path: str) -> None:
    """Tries the checksum of every record.

    Raises:
        BinFileError: as ``read_companion``; a record is damaged.
    """
    reader = Reader(path)
    images = np.empty((_TOGETHER, *reader.header.shape), np.uint8)
    for first in range(0, reader.header.count, _TOGETHER):
        indices = np.arange(first, min(first + _TOGETHER, reader.header.count))
        reader.into(images, np.arange(len(indices)), indices)


def read_records(path: str, indices: Sequence[int]) -> np.ndarray:
    """Chosen images (B, H, W, C) uint8, in the order of ``indices``.

    Raises:
        BinFileError: as ``read_companion``; an index is outside 0..count-1; a record is damaged.
    """
    return Reader(path)(indices)


class Reader:
    """Reads chosen images; what stands beside them is read once, here. The file stays open, whatever takes its name.

    Each record's checksum is tried when it is read for the first time. Calls may run in parallel.

    Attributes:
        path: the packed file.
        header: its header.
        buffers: memory for batches of its records. It is the reader's, not a dataset's: TensorFlow never forgets the
            functions of datasets, nor what they hold.

    Raises:
        BinFileError: as ``read_records``, also the calls.
    """

    def __init__(self, path: str):
        self.path, self.header, self.buffers = path, read_header(path), Buffers()
        self._checksums = _beside(path, self.header)["checksums"]
        self._tried, self._lock = np.zeros(self.header.count, bool), threading.Lock()
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed with its reader
        weakref.finalize(self, self._file.close)

    def __call__(self, indices: Sequence[int]) -> np.ndarray:
        """Images (B, H, W, C) uint8, in the order of ``indices``."""
        indices = _checked_indices(indices, self.header, self.path)
        images = np.empty((len(indices), *self.header.shape), np.uint8)
        self.into(images, np.arange(len(indices)), indices)
        return images

    def into(self, images: np.ndarray, rows: np.ndarray, indices: np.ndarray) -> None:
        """Reads the records ``indices`` (B,) into the ``rows`` (B,) of ``images`` (R, H, W, C) uint8, by one call."""
        flat = images.reshape(len(images), self.header.record_bytes)
        offsets = HEADER_BYTES + np.asarray(indices, np.int64) * self.header.record_bytes
        done = record_kernels.fetch(self._file.fileno(), offsets, rows, flat) if record_kernels.HAS_PREAD else 0
        for place in range(done, len(offsets)):  # the kernel does not tell what went wrong
            self._read(flat[rows[place]], offsets[place], indices[place])
        for place in np.flatnonzero(~self._tried[indices]):
            index = indices[place]
            if zlib.crc32(flat[rows[place]]) != self._checksums[index]:
                name = _beside(self.path, self.header)["names"][index]
                raise BinFileError(f"{self.path}: image {index} is damaged (its name is '{name}', its checksum "
                                   f"differs); {_AGAIN}")
            self._tried[index] = True

    def _read(self, row, offset, index) -> None:
        try:
            with self._lock:
                self._file.seek(offset)
                found = self._file.readinto(row)
        except OSError as error:
            raise BinFileError(f"{self.path}: image {index} cannot be read: {error.strerror}") from error
        if found != len(row):
            raise BinFileError(f"{self.path} became shorter while it was read; {_AGAIN}")


@contextlib.contextmanager
def damage_named() -> Iterator[None]:
    """Around the use of a ``tf.data`` pipeline that reads: raises BinFileError where TensorFlow's error hides it."""
    try:
        yield
    except tf.errors.OpError as error:
        _, ours, message = error.message.partition(f"{BinFileError.__name__}: ")
        if not ours:
            raise
        raise BinFileError(message.splitlines()[0]) from error


def _checked_indices(indices, header: Header, path: str) -> np.ndarray:
    indices = np.asarray(indices, np.int64).reshape(-1)
    if indices.size and not 0 <= indices.min() <= indices.max() < header.count:
        raise BinFileError(f"{path} holds images 0..{header.count - 1}, asked for "
                           f"{indices.min()}..{indices.max()}")
    return indices
