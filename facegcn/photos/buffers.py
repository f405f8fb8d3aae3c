"""Memory for batches that is used again."""

from __future__ import annotations

import collections
import math
import weakref

import numpy as np

_ALIGNMENT = 64  # bytes; TensorFlow copies arrays that begin elsewhere
_KEPT = 8  # pieces of a size that wait to be used again: as many as batches are read ahead


class Buffers:
    """Arrays whose memory comes back when nothing refers to them any more.

    The system hands out large pieces of memory page by page, and to touch them for the first time takes several times
    longer than to fill a batch.
    """

    def __init__(self):
        self._free = collections.defaultdict(list)  # pieces of memory by their size

    def take(self, shape, dtype) -> np.ndarray:
        """An array of any content, which no other array shares while it, or a view of it, is in use."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        free = self._free[size]
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(size + _ALIGNMENT, np.uint8).data
        # Of this array every view is a view, since its memory belongs to no array that NumPy would name instead.
        whole = np.frombuffer(memory, np.uint8)
        weakref.finalize(whole, _give_back, free, memory).atexit = False
        begin = -whole.ctypes.data % _ALIGNMENT
        return whole[begin:begin + size].view(dtype).reshape(shape)


def _give_back(free: list, memory) -> None:
    if len(free) < _KEPT:
        free.append(memory)
