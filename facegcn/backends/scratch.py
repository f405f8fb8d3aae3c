"""Memory that each thread keeps to work in: to ask the system for it anew takes as long as half of a drawing."""

from __future__ import annotations

import threading

import numpy as np

_MOST_KEPT = 1 << 26  # bytes of one array


class _Scratch(threading.local):
    def __init__(self):
        self._kept = {}

    def empty(self, name: str, size: int, dtype) -> np.ndarray:
        """An unfilled array (size,), the thread's own until it asks for the same name again."""
        kept = self._kept.get((name, dtype))
        if kept is None or len(kept) < size:
            kept = np.empty(size, dtype)
            if kept.nbytes <= _MOST_KEPT:
                self._kept[name, dtype] = kept
        return kept[:size]


scratch = _Scratch()
