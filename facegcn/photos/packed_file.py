"""The packed image file (``.bin``): a header, then uint8 RGBA records of one size.

Header, 64 bytes, little endian: magic ``FACEGCN\\0``, version (uint32), image count (uint64),
height, width, channels (uint32 each), dtype name (8 bytes of ASCII), zeros. Record i starts at
byte 64 + i * height * width * channels, so a rejected image never shifts another one.

Beside ``faces.bin``: ``faces.names.txt`` (one record's name a line), ``faces.landmarks.npz``
(points where known), and the lists ``train.txt``, ``val.txt``, ``test.txt`` (names).
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from facegcn.errors import BinFileError

MAGIC = b"FACEGCN\0"
VERSION = 1
HEADER_BYTES = 64
_LAYOUT = struct.Struct("<8sIQIII8s")
_GATHER = 32  # records fetched by one call when reading chosen indices

SPLIT_NAMES = ("train", "val", "test")


class Header(NamedTuple):
    """What a packed file holds: image count, height and width in pixels, channels."""

    count: int
    height: int
    width: int
    channels: int

    @property
    def record_bytes(self) -> int:
        """Bytes of one image."""
        return self.height * self.width * self.channels

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        return self.height, self.width, self.channels


def companion(path: str, ending: str) -> str:
    """Path of a file beside the packed file: ``faces.bin``, ``names.txt`` -> ``faces.names.txt``."""
    return f"{os.path.splitext(path)[0]}.{ending}"


# ---------------------------------------------------------------- writing
def write_bin(path: str, names: Sequence[str] | None, images: Iterable[np.ndarray]) -> list[str]:
    """Packs images; nothing appears under ``path`` before the file is whole.

    Args:
        path: the ``.bin`` file; its folder is made.
        names: one name per image, unique. None when ``images`` yields (name, image) pairs.
        images: uint8 (H, W, 4) arrays of one shape, in the order of the names. May be lazy.

    Returns:
        the names of the records, in order.

    Raises:
        BinFileError: no image, not one name per image, a name twice or with a line break, another
            shape or dtype than the first image's (both are named).
    """
    if names is not None:
        images = zip(names, images, strict=True)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    partial = path + ".partial"
    written: list[str] = []
    try:
        with open(partial, "wb") as file:
            file.write(bytes(HEADER_BYTES))
            shape = _write_records(file, images, written)
            file.seek(0)
            file.write(_LAYOUT.pack(MAGIC, VERSION, len(written), *shape, b"uint8"))
        _write_lines(companion(path, "names.txt"), written)
        os.replace(partial, path)
    except ValueError as error:
        raise BinFileError(f"{path} was not written: {error}") from error
    finally:
        if os.path.exists(partial):
            os.remove(partial)
    return written


def _write_records(file, images, written: list[str]) -> tuple[int, ...]:
    """Appends the images, fills ``written`` with their names; returns the shape they share."""
    shape, seen = None, set()
    for name, image in images:
        image = np.asarray(image)
        if shape is None:
            shape = image.shape
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 4:
            raise ValueError(f"'{name}' must be uint8 (H, W, 4), got {image.dtype} {image.shape}")
        if image.shape != shape:
            raise ValueError(f"'{name}' has shape {image.shape}, the first image {shape}")
        if name in seen or "\n" in name:
            raise ValueError(f"the name '{name}' " + ("occurs twice" if name in seen else "has a line break"))
        seen.add(name)
        written.append(name)
        file.write(np.ascontiguousarray(image).data)
    if shape is None:
        raise ValueError("there is no image to pack")
    return shape


def _write_lines(path: str, lines: Iterable[str]) -> None:
    """Writes a text file to a temporary name, renamed when whole."""
    partial = path + ".partial"
    with open(partial, "w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
    os.replace(partial, path)


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
    _, version, count, height, width, channels, dtype = _LAYOUT.unpack_from(head)
    dtype = dtype.rstrip(b"\0").decode("ascii", "replace")
    if version != VERSION or dtype != "uint8":
        raise BinFileError(f"{path} has version {version} and dtype {dtype}; "
                           f"this program reads version {VERSION}, uint8: make it again with create_bin.py")
    header = Header(count, height, width, channels)
    expected = HEADER_BYTES + count * header.record_bytes
    if size != expected:
        raise BinFileError(f"{path} is {'cut short' if size < expected else 'too long'}: {size:,} bytes, but "
                           f"{count:,} images of {height} x {width} x {channels} need {expected:,}; "
                           "make it again with create_bin.py")
    return header


def read_names(path: str) -> list[str]:
    """The names of the records of the packed file ``path``, in order.

    Raises:
        BinFileError: the list is absent or its length is not the image count.
    """
    count = read_header(path).count
    names = _read_lines(companion(path, "names.txt"))
    if len(names) != count:
        raise BinFileError(f"{companion(path, 'names.txt')} has {len(names):,} names, {path} holds "
                           f"{count:,} images; make both again with create_bin.py")
    return names


def _read_lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return [line for line in file.read().split("\n") if line]
    except OSError as error:
        raise BinFileError(f"cannot read {path}: {error.strerror}; create_bin.py writes it") from error


def read_records(path: str, indices: Sequence[int]) -> np.ndarray:
    """Chosen images (B, H, W, C) uint8, in the order of ``indices``.

    Raises:
        BinFileError: as ``read_header``; an index is outside 0..count-1.
    """
    header = read_header(path)
    return _gather(path, header, _checked_indices(indices, header, path))


def reader(path: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function that reads chosen images (B, H, W, C) uint8; what stands beside them is read once, here.

    Raises:
        BinFileError: as ``read_records``, also the function.
    """
    header = read_header(path)
    return lambda indices: _gather(path, header, indices)


def dataset(path: str, indices: Sequence[int] | None = None, batch_size: int | None = None,
            workers: int = tf.data.AUTOTUNE) -> tf.data.Dataset:
    """Images as a parallel ``tf.data`` pipeline, in order.

    Args:
        path: the packed file.
        indices: records to read; None reads all of them.
        batch_size: None for single images (H, W, C); else batches (B, H, W, C), the last one may be
            smaller, which is the fastest way: a batch is one call and one copy.
        workers: parallel calls.

    Returns:
        uint8 images.

    Raises:
        BinFileError: as ``read_records``.
    """
    header = read_header(path)
    rows = np.arange(header.count) if indices is None else _checked_indices(indices, header, path)

    def gather(chosen):
        images = tf.numpy_function(lambda i: _gather(path, header, i), [chosen], tf.uint8, stateful=False)
        return tf.ensure_shape(images, (None, *header.shape))

    # One call fetches many records: a Python call each would cost more than the copy.
    batches = (tf.data.Dataset.from_tensor_slices(rows).batch(batch_size or _GATHER)
               .map(gather, num_parallel_calls=workers, deterministic=True))
    return (batches if batch_size else batches.unbatch()).prefetch(tf.data.AUTOTUNE)


def _gather(path: str, header: Header, indices) -> np.ndarray:
    """Reads records (B, H, W, C); Python's lock is free meanwhile, so calls run in parallel."""
    images = np.empty((len(indices), *header.shape), np.uint8)
    with open(path, "rb", buffering=0) as file:
        for image, index in zip(images, indices):
            file.seek(HEADER_BYTES + int(index) * header.record_bytes)
            if file.readinto(image.reshape(-1)) != header.record_bytes:
                raise BinFileError(f"{path} became shorter while it was read")
    return images


def _checked_indices(indices, header: Header, path: str) -> np.ndarray:
    indices = np.asarray(indices, np.int64).reshape(-1)
    if indices.size and not 0 <= indices.min() <= indices.max() < header.count:
        raise BinFileError(f"{path} holds images 0..{header.count - 1}, asked for "
                           f"{indices.min()}..{indices.max()}")
    return indices


# ---------------------------------------------------------------- the released layout
def open_legacy(path: str, size: int) -> np.ndarray:
    """The released code's headerless layout as a read-only memory map (count, size, size, 4) float32.

    The layout: RGBA records one after the other, RGB in [-1, 1], alpha in [0, 1].

    Raises:
        BinFileError: absent, or its length is no multiple of a record of this size.
    """
    record_bytes = size * size * 4 * 4
    try:
        length = os.path.getsize(path)
    except OSError as error:
        raise BinFileError(f"cannot read {path}: {error.strerror}") from error
    if length == 0 or length % record_bytes:
        raise BinFileError(f"{path} has {length:,} bytes, no multiple of {record_bytes:,} (one float32 RGBA "
                           f"image of {size} x {size}); give the images' width with --img_size")
    return np.memmap(path, "<f4", "r", shape=(length // record_bytes, size, size, 4))


def legacy_to_uint8(record: np.ndarray) -> np.ndarray:
    """One record of the released layout (H, W, 4) as uint8 RGBA.

    Raises:
        BinFileError: values outside RGB [-1, 1], alpha [0, 1].
    """
    rgb, alpha = record[..., :3], record[..., 3:]
    if not (np.abs(rgb).max() <= 1.001 and alpha.min() >= -0.001 and alpha.max() <= 1.001):
        raise BinFileError("has values outside RGB [-1, 1], alpha [0, 1]: not the released code's layout, "
                           "or another image width (--img_size)")
    levels = np.concatenate([rgb * 127.5 + 127.5, alpha * 255.0], axis=-1)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


# ---------------------------------------------------------------- landmarks
def write_landmarks(path: str, points: np.ndarray, landmarks: np.ndarray) -> None:
    """Writes the points of every record of the packed file ``path``.

    Args:
        points: (count, 5, 2) float32 alignment points, pixels, x right, y down; NaN where unknown.
        landmarks: (count, 68, 2) float32 iBUG points; NaN where unknown.
    """
    target = companion(path, "landmarks.npz")
    partial = target + ".partial.npz"
    np.savez_compressed(partial, points=np.asarray(points, np.float32),
                        landmarks=np.asarray(landmarks, np.float32))
    os.replace(partial, target)


def read_landmarks(path: str) -> tuple[np.ndarray, np.ndarray]:
    """(count, 5, 2) and (count, 68, 2) points of the records of ``path``; all NaN without a file.

    Raises:
        BinFileError: the file beside the packed one is damaged or of another image count.
    """
    count = read_header(path).count
    source = companion(path, "landmarks.npz")
    if not os.path.exists(source):
        return np.full((count, 5, 2), np.nan, np.float32), np.full((count, 68, 2), np.nan, np.float32)
    try:
        with np.load(source, allow_pickle=False) as data:
            points, landmarks = data["points"], data["landmarks"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BinFileError(f"{source} is damaged ({error}); make it again with create_bin.py") from error
    if points.shape != (count, 5, 2) or landmarks.shape != (count, 68, 2):
        raise BinFileError(f"{source} holds points {points.shape} and {landmarks.shape}, {path} {count:,} "
                           "images; make both again with create_bin.py")
    return points, landmarks


# ---------------------------------------------------------------- train / val / test
class Split(NamedTuple):
    """Names of the training, validation and test images, and a remark for the user ("" = none)."""

    train: list[str]
    val: list[str]
    test: list[str]
    remark: str = ""


def split_names(names: Sequence[str], val: int, test: int, seed: int) -> Split:
    """Seeded random split; the same names in any order give the same split.

    Where ``val + test`` is more than half of the set, both shrink in proportion to a quarter of it
    together (one each at least, from three images on), and ``remark`` says so.

    Raises:
        ValueError: a negative count.
    """
    if val < 0 or test < 0:
        raise ValueError(f"cannot hold out {val} and {test} images: negative")
    count, remark = len(names), ""
    if val + test > count / 2:
        asked, (val, test) = (val, test), _shrunk(val, test, count)
        remark = (f"{count} images are too few to hold out {asked[0]} for validation and {asked[1]} for "
                  f"testing: {val} and {test} are held out, {count - val - test} are left for training")
    order = np.random.default_rng(seed).permutation(count)
    shuffled = [sorted(names)[i] for i in order]
    return Split(sorted(shuffled[val + test:]), sorted(shuffled[:val]), sorted(shuffled[val:val + test]),
                 remark)


def _shrunk(val: int, test: int, count: int) -> tuple[int, int]:
    """Two hold-out sizes in the asked proportion, about a quarter of ``count`` together."""
    if count < 3:
        return 0, 0
    factor = (count // 4) / (val + test)
    return tuple(max(1, round(asked * factor)) if asked else 0 for asked in (val, test))


def write_split(path: str, split: Split) -> None:
    """Writes ``train.txt``, ``val.txt`` and ``test.txt`` beside the packed file ``path``."""
    for part in SPLIT_NAMES:
        _write_lines(_split_path(path, part), getattr(split, part))


def read_split(path: str) -> dict[str, np.ndarray]:
    """Record indices of ``train``, ``val`` and ``test`` of the packed file ``path``.

    Raises:
        BinFileError: a list is absent, or names an image that is not packed (the name is given).
    """
    position = {name: index for index, name in enumerate(read_names(path))}
    indices = {}
    for part in SPLIT_NAMES:
        names = _read_lines(_split_path(path, part))
        absent = [name for name in names if name not in position]
        if absent:
            raise BinFileError(f"{_split_path(path, part)} names {len(absent)} images that {path} does not "
                               f"hold, first '{absent[0]}'; make the lists again with create_bin.py")
        indices[part] = np.array([position[name] for name in names], np.int64)
    return indices


def _split_path(path: str, part: str) -> str:
    return os.path.join(os.path.dirname(os.path.abspath(path)), f"{part}.txt")
