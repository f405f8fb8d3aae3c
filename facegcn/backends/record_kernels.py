"""The inner loops of reading packed images, compiled by Numba; calls run in parallel, without Python's lock.

``photos.packed_file`` holds the layout of the file, ``photos.packed_photos`` the meaning of the ranges.
"""

from __future__ import annotations

import os

import numpy as np
from numba import njit
from numba.core import types

#: Whether the system has ``pread``, which reads at a place of a file without moving a position that threads share.
HAS_PREAD = hasattr(os, "pread")

_pread = types.ExternalFunction("pread", types.intp(types.intc, types.uintp, types.uintp, types.int64))


@njit(nogil=True, cache=True)
def fetch(handle, offsets, rows, out):
    """Reads ``out.shape[1]`` bytes at each offset of a file into a row of ``out``.

    Args:
        handle: of the open file.
        offsets: (B,) int64 bytes from the file's beginning.
        rows: (B,) int64 rows of ``out``.
        out: (R, bytes) uint8.

    Returns:
        how many were read before one that could not be read whole; B = all.
    """
    size = out.shape[1]
    for i in range(len(offsets)):
        place, done = out[rows[i]].ctypes.data, 0
        while done < size:  # the system may give less at a time than is asked for
            got = _pread(handle, place + done, size - done, offsets[i] + done)
            if got <= 0:
                return i
            done += got
    return len(offsets)


@njit(nogil=True, cache=True)
def to_network_range(rgba8, out):
    """uint8 RGBA to float32, RGB in [-1, 1], alpha in [0, 1], in one pass.

    No ``fastmath``: product and sum are rounded one by one, as TensorFlow's are.

    Args:
        rgba8: (4 P,) uint8, pixel after pixel; flat, since this is what LLVM makes vector instructions of.
        out: (4 P,) float32.
    """
    color, alpha, one = np.float32(1 / 127.5), np.float32(1 / 255), np.float32(1)
    for p in range(len(rgba8) // 4):
        out[4 * p] = np.float32(rgba8[4 * p]) * color - one
        out[4 * p + 1] = np.float32(rgba8[4 * p + 1]) * color - one
        out[4 * p + 2] = np.float32(rgba8[4 * p + 2]) * color - one
        out[4 * p + 3] = np.float32(rgba8[4 * p + 3]) * alpha
