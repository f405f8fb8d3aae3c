"""Reading MATLAB files that others made, with errors a user can act on.

A file is described by ``ArraySpec``s. ``check_arrays`` looks at headers and index arrays only;
``read_arrays`` reads what is asked for. Numbers in MATLAB files count from 1. Versions 5 to 7 are read by SciPy;
version 7.3, which is HDF5 with MATLAB's attributes and its axes in reverse, by h5py.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import h5py
import numpy as np
import scipy.io

from facegcn.errors import BrokenFile

_HEADER = 128  # bytes before the first array of a version 5 file
_NUMERIC = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_CLASSES = {"float64": "double", "float32": "single"}  # where another program left MATLAB's attribute out
_HDF5_RATIO = 2000  # size of an array over that of its file; zlib reaches about 1000
_CHECKSUM_BYTES = 4
_COMPRESSED = 15  # type of an element that zlib packed
_HEAD = 1024  # bytes in which flags, lengths, name and the tag of the numbers lie, where the name is no story
_NUMBER_CLASSES = range(6, 16)  # double to uint64
_COMPLEX = 0x800  # flag
_FLAGS = (6, 8)  # type of an array's flags, and their bytes
_LENGTHS_AND_NAME = (5, 1)  # types of its lengths and its name
_ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}  # by type; int8 to uint64
#: What SciPy and h5py raise for a file that is damaged.
READ_ERRORS = (ValueError, TypeError, NotImplementedError, OSError, KeyError, RuntimeError, MemoryError, zlib.error,
               struct.error, scipy.io.matlab.MatReadError)


class AtLeast(NamedTuple):
    """An axis that may be longer than what is used of it."""

    count: int


@dataclass(frozen=True)
class ArraySpec:
    """What an array must look like.

    Attributes:
        shape: lengths; an ``AtLeast`` where more will do. One length: a row or a column of it.
        kind: ``values`` (single or double), ``index`` (whole numbers 1..limit of any numeric class)
            or ``labels`` (whole numbers 0..limit).
        limit: largest index or label.
        required: whether the file must have it.
    """

    shape: tuple
    kind: str = "values"
    limit: int = 0
    required: bool = True

    def describe(self) -> str:
        """``(160470, 80 or more) single/double``."""
        lengths = ", ".join(f"{s.count} or more" if isinstance(s, AtLeast) else f"{s}" for s in self.shape)
        kind = {"values": "single/double", "index": f"whole numbers 1..{self.limit}",
                "labels": f"whole numbers 0..{self.limit}"}[self.kind]
        return f"({lengths}) {kind}"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape will do."""
        if len(self.shape) == 1:
            shape = (max(shape),) if len(shape) == 2 and min(shape) == 1 else shape
        return len(shape) == len(self.shape) and all(
            have >= want.count if isinstance(want, AtLeast) else have == want
            for have, want in zip(shape, self.shape))


def check_arrays(path: str, specs: dict[str, ArraySpec]) -> None:
    """Checks names, shapes and classes of a ``.mat`` file, and the range of its index arrays.

    Args:
        path: the file.
        specs: what it must hold, by array name.

    Raises:
        BrokenFile: names the array and what is wrong.
    """
    found = _listed(path)
    for name, spec in specs.items():
        if name not in found:
            if spec.required:
                raise BrokenFile(path, f"lacks the array '{name}' {spec.describe()}; it has "
                                       + (", ".join(sorted(found)) or "none"))
            continue
        shape, matlab_class = found[name]
        if matlab_class not in (("single", "double") if spec.kind == "values" else _NUMERIC):
            raise BrokenFile(path, f"array '{name}' is of class {matlab_class}, expected {spec.describe()}")
        if not spec.fits(shape):
            raise BrokenFile(path, f"array '{name}' has shape {shape}, expected {spec.describe()}")
    indices = [name for name, spec in specs.items() if name in found and spec.kind != "values"]
    for name, array in _loaded(path, indices).items():
        _check_range(path, name, array, specs[name])


def read_arrays(path: str, specs: dict[str, ArraySpec]) -> dict[str, np.ndarray]:
    """Reads and checks the arrays of a ``.mat`` file.

    Args:
        path: the file.
        specs: what to read, by array name; an array that is not required may be missing in the result.

    Returns:
        by name: vectors as (n,), index arrays as int64 counted from 0, labels as int64, values as floats.

    Raises:
        BrokenFile: as ``check_arrays``.
    """
    check_arrays(path, specs)
    arrays = {}
    for name, array in _loaded(path, list(specs)).items():
        array = array.reshape(-1) if len(specs[name].shape) == 1 else array
        if specs[name].kind == "values":
            if not np.isfinite(array).all():
                raise BrokenFile(path, f"array '{name}' has values that are not finite")
            if array.dtype.kind != "f":  # MATLAB stores numbers without fractions as short as they fit
                array = array.astype(np.float64)
        else:
            array = array.astype(np.int64) - (specs[name].kind == "index")
        arrays[name] = array
    return arrays


def _check_range(path, name, array, spec):
    """Raises BrokenFile when an index array has fractions or leaves its range."""
    first = 1 if spec.kind == "index" else 0
    low, high = array.min(), array.max()
    if not np.isfinite([low, high]).all() or np.any(array != np.round(array)):
        raise BrokenFile(path, f"array '{name}' has values that are no whole numbers")
    if low < first or high > spec.limit:
        raise BrokenFile(path, f"array '{name}' has an index out of range: {low:.0f}..{high:.0f}, "
                               f"expected {first}..{spec.limit}")


def _listed(path):
    """{name: (shape, class)} of a ``.mat`` file, from its headers."""
    try:
        if _is_hdf5(path):
            with h5py.File(path, "r") as file:
                return {name: (array.shape[::-1], _matlab_class(array)) for name, array in _hdf5_arrays(file, path)}
        _elements(path)
        return {name: (shape, matlab_class) for name, shape, matlab_class in scipy.io.whosmat(path)}
    except READ_ERRORS as error:
        raise BrokenFile(path, f"is no readable MATLAB file: {error}") from error


def _loaded(path, names):
    """The named arrays that the file has, with MATLAB's axes."""
    if not names:
        return {}
    try:
        if _is_hdf5(path):
            with h5py.File(path, "r") as file:
                return {name: array[()].T for name, array in _hdf5_arrays(file, path) if name in names}
        _check_elements(path, names)
        arrays = scipy.io.loadmat(path, variable_names=names)
    except READ_ERRORS as error:
        raise BrokenFile(path, f"cannot be read to its end ({error}); copy it anew") from error
    return {name: arrays[name] for name in names if name in arrays}


def _is_hdf5(path):
    """Whether a file is of version 7.3; raises BrokenFile when it is of no version."""
    with open(path, "rb") as file:
        header = file.read(_HEADER)
    if header[:10] == b"MATLAB 7.3" or header.startswith(_HDF5):
        return True
    if len(header) < _HEADER or header[126:128] not in (b"IM", b"MI"):
        raise BrokenFile(path, "is no MATLAB file (version 5 to 7.3)" if header else "is empty")
    return False


# ---------------------------------------------------------------- version 7.3
def _hdf5_arrays(file, path):
    """(name, dataset) of the arrays in a version 7.3 file; cells, structures and references are none of ours.

    Raises:
        BrokenFile: as ``check_stored``.
    """
    for name in file:
        array = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
        if not isinstance(array, h5py.Dataset) or array.attrs.get("MATLAB_empty"):
            continue
        check_stored(path, name, array)
        yield name, array


def check_stored(path: str, name: str, array: h5py.Dataset) -> None:
    """Makes sure that an HDF5 array lies in its file, and is not larger than that can be.

    A chunk too short for its own checksum ends the process in the HDF5 library (Fletcher's takes 4 bytes of it).

    Raises:
        BrokenFile: it is not so.
    """
    if array.external or array.is_virtual or os.path.realpath(array.file.filename) != os.path.realpath(path):
        raise BrokenFile(path, f"array '{name}' lies in another file; save it as one")
    if array.nbytes > _HDF5_RATIO * os.path.getsize(path):
        raise BrokenFile(path, f"array '{name}' would take {array.nbytes:,} bytes, the file has "
                               f"{os.path.getsize(path):,}: it is damaged; copy it anew")
    if array.chunks is not None:
        least = 1 + (_CHECKSUM_BYTES if array.fletcher32 else 0)
        if array.id.chunk_iter(lambda chunk: True if chunk.size < least else None):
            raise BrokenFile(path, f"array '{name}' has a part of no length: the file is damaged; copy it anew")


def _matlab_class(array):
    """MATLAB's name of an HDF5 dataset's type."""
    given = array.attrs.get("MATLAB_class")
    kind = array.dtype.name
    return (given.decode() if isinstance(given, bytes) else str(given)) if given is not None \
        else _HDF5_CLASSES.get(kind, kind)


# ---------------------------------------------------------------- versions 5 to 7
class _Element(NamedTuple):
    """One top-level element of a version 5 file: its type's number, where its content begins, bytes of that."""

    kind: int
    begin: int
    size: int


def _elements(path) -> tuple[str, list[_Element]]:
    """Byte order as ``struct`` writes it, and the elements. Raises BrokenFile for a file that ends too early.

    MATLAB's file format documentation: each array of a version 5 file follows an 8-byte tag, data type and
    byte count.
    """
    size, found = os.path.getsize(path), []
    with open(path, "rb") as file:
        order = "<" if file.read(_HEADER)[126:128] == b"IM" else ">"
        position = _HEADER
        while position < size:
            file.seek(position)
            tag = file.read(8)
            kind, length = struct.unpack(order + "II", tag) if len(tag) == 8 else (0, 0)
            position += 8 + length
            if len(tag) < 8 or position > size:
                raise BrokenFile(path, f"ends too early ({size} bytes): it was cut short; copy it anew")
            found.append(_Element(kind, position - length, length))
    return order, found


def _check_elements(path, names) -> None:
    """Raises BrokenFile where the numbers of a named array are not of a type and a length that its header allows.

    SciPy takes both from the file as they are: an unknown type ends the process.
    """
    order, elements = _elements(path)
    with open(path, "rb") as file:
        for element in elements:
            file.seek(element.begin)
            head = file.read(min(element.size, _HEAD))
            size = element.size
            if element.kind == _COMPRESSED:
                head, size = zlib.decompressobj().decompress(head, _HEAD)[8:], _HDF5_RATIO * element.size
            name, problem = _head_problem(order, head, size)
            if problem and (name in names or name is None):
                raise BrokenFile(path, f"array '{name or '?'}' {problem}: the file is damaged; copy it anew")


def _head_problem(order, head, size) -> tuple[str | None, str]:
    """Name of an array (None = it has none that can be read), and what is wrong with its head, "" = nothing.

    The head is flags, lengths, name, and the tag of the numbers; each begins at a multiple of eight bytes, and what
    takes four bytes or less shares eight with its tag.
    """
    def part(at):
        """(type, content, place of the next, bytes it says it has) of the part at a place."""
        kind, length = struct.unpack_from(order + "II", head, at)
        if kind >> 16:  # a small one
            return kind & 0xFFFF, head[at + 4:at + 4 + (kind >> 16)], at + 8, kind >> 16
        return kind, head[at + 8:at + 8 + length], at + 8 + -(-length // 8) * 8, length

    name = None
    try:
        kind, flags, at, length = part(0)
        if (kind, length) != _FLAGS:  # SciPy would go on elsewhere
            return None, "has no whole header"
        word, = struct.unpack(order + "I", flags[:4])
        if (word & 0xFF) not in _NUMBER_CLASSES:
            return "", "is of no numbers"  # nor read by its name: what is listed says so, too
        kind, lengths, at, _ = part(at)
        other, text, at, _ = part(at)
        if (kind, other) != _LENGTHS_AND_NAME:
            return None, "has no whole header"
        name = text.decode("latin-1")
        kind, _, _, length = part(at)
        shape = struct.unpack(order + f"{len(lengths) // 4}i", lengths)
    except struct.error:
        return name, "has no whole header"
    if word & _COMPLEX or min(shape, default=-1) < 0:
        return name, "has complex numbers, or negative lengths"
    if length != math.prod(shape) * _ITEM_BYTES.get(kind, -1) or length > size:
        return name, f"has {length} bytes of type {kind}, which are no {shape} numbers"
    return name, ""
