"""Forged ``.npz`` files: whole archives with right checksums whose arrays are not what they should be."""

from __future__ import annotations

import io
import zipfile
from random import Random

import numpy as np

from tests.fuzzing.attempts import Case
from tests.fuzzing.changes import damaged

_NUMBERS = (np.nan, np.inf, -np.inf, -1, 0, 1, 0.5, 2 ** 31, 2 ** 63, -2 ** 31, 1e30, 1e300, 255, 1e-30)
_TYPES = ("<f8", "<f4", "<f2", ">f4", "<i4", "<i8", "|i1", "|u1", "<u8", "|b1", "<c8", "<U4", "|S3", "<M8[s]", "<m8[s]",
          "|V4")
_HEADERS = (  # of an array: what NumPy evaluates as a literal
    "{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }", "{'descr': '<f4', 'fortran_order': True, 'shape': "
    "(2, %d), }", "{'descr': '|O', 'fortran_order': False, 'shape': (%d,), }", "{'descr': '<f4', 'shape': (%d,), }",
    "{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (%d,), }", "(" * 20_000 + "%d",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-%d,), }", "__import__('os').system('false') or %d",
    "{'descr': '<U%d', 'fortran_order': False, 'shape': (1,), }", "[%d] * 10 ** 9", "9 ** 9 ** %d",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (0, %d), }", "{'descr': '|V0', 'fortran_order': False, "
    "'shape': (%d,), }", "{'descr': '<f4', 'fortran_order': False, 'shape': (True, %d), }",
    "{'descr': ('<f4', (2 ** %d,)), 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<U0', 'fortran_order': False, 'shape': (%d,), }")
_ENTRIES = ("../x.npy", "/x.npy", "x", "", "a/../../x.npy", "\0.npy", "é" * 300 + ".npy", "C:\\x.npy", "x.npy/")


def arrays_of(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of a sound ``.npz``."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def forged(rng: Random, data: bytes, other: bytes) -> bytes:
    """An archive with arrays of another shape, type or content, without some, or with what no array is.

    Args:
        rng: decides.
        data: a sound ``.npz``.
        other: another, whose arrays may take the place of the first one's.
    """
    arrays, others = arrays_of(data), arrays_of(other)
    entries: dict[str, bytes] = {}
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name = rng.choice(list(arrays) or ["x"])
        way = rng.randrange(9)
        if way == 0:
            arrays.pop(name, None)
        elif way == 1:
            arrays[name] = rng.choice(list(others.values()))
        elif way == 2:
            arrays[rng.choice((*arrays, *others, "x"))] = arrays.pop(name, np.zeros(2))
        elif way == 3:
            entries[name + ".npy"] = raw_array(rng.choice(_HEADERS) % rng.choice((0, 1, 3, 7, 2 ** 31, 2 ** 62)),
                                               bytes(rng.choice((0, 4, 12, 28))))
            arrays.pop(name, None)
        elif way == 4:
            entries[rng.choice(_ENTRIES)] = rng.choice((b"", b"\x93NUMPY", rng.randbytes(20)))
        elif name in arrays:
            arrays[name] = _changed(rng, arrays[name])
    return archive(rng, arrays, entries)


def raw_array(header: str, content: bytes) -> bytes:
    """A ``.npy`` file of any header."""
    text = header.encode("latin-1", "replace") + b"\n"
    return b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text + content


def archive(rng: Random, arrays, entries) -> bytes:
    """Arrays and further entries as a zip file of some kind of compression."""
    held = io.BytesIO()
    kinds = rng.choices((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA), (9, 9, 1, 1))
    with zipfile.ZipFile(held, "w", *kinds, compresslevel=1) as file:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=True)
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())
        for name, content in entries.items():
            file.writestr(zipfile.ZipInfo(name), content)
    return held.getvalue()


def _changed(rng, array):
    """An array of other numbers, another type or another shape."""
    way = rng.randrange(8)
    try:
        if way == 0:
            return array.astype(rng.choice(_TYPES))
        if way == 1:
            return np.zeros(array.shape, object) if array.size < 100 else array[None]
        if way == 2:
            return rng.choice((array.T, array.ravel(), array[None], array[..., None], array[:0], array[:-1], array[1:],
                               np.concatenate([array, array]), np.swapaxes(array, 0, -1), array[..., :-1]))
        array = array.copy()
        flat = array.reshape(-1)
        if way == 3:
            flat[:] = rng.choice(_NUMBERS)
        elif way == 4:
            array = array.astype(np.float64)
            array.reshape(-1)[rng.randrange(array.size)] = rng.choice(_NUMBERS)
        elif way == 5:
            return np.asfortranarray(array)
        elif flat.dtype.kind in "US":
            flat[rng.randrange(flat.size)] = rng.choice(("", "../x", "a\0b", "é", "</script>"))
        else:
            flat[rng.randrange(flat.size)] = rng.choice(_NUMBERS)
        return array
    except (ValueError, TypeError, IndexError, OverflowError, RuntimeError):  # not of this kind of array
        return array


class ArchiveCases:
    """Mixed into readers whose files are ``.npz``: half of the inputs are damaged, half forged."""

    checksums = True

    def case(self, rng: Random, seeds) -> Case:
        files = rng.choice(seeds)
        name = rng.choice([name for name in files if name.endswith(".npz")])
        others = [other[name] for other in seeds if name in other]
        if rng.random() < 0.5:
            return Case({**files, name: damaged(rng, files[name], others)}, True)
        return Case({**files, name: forged(rng, files[name], rng.choice(others))})


def packed_arrays(arrays, compressed: bool = True) -> bytes:
    """A sound ``.npz``."""
    held = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(held, **arrays)
    return held.getvalue()
