"""Which packed images are learnt from, validated on and held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def split_names(names: Sequence[str], val: int, test: int, seed: int) -> tuple[dict[str, np.ndarray], str]:
    """Seeded random split; the same names in any order give the same split.

    Where ``val + test`` is more than half of the set, both shrink in proportion to a quarter of it
    together (one each at least, from three images on).

    Returns:
        record indices, sorted by name, of ``train``, ``val`` and ``test``; and a remark for the user, "" or what
        was shrunk.

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
    by_name = np.array(sorted(range(count), key=names.__getitem__), np.int64)
    drawn = np.random.default_rng(seed).permutation(count)
    held_out, train = np.split(drawn, [val + test])
    return {"train": by_name[np.sort(train)], "val": by_name[np.sort(held_out[:val])],
            "test": by_name[np.sort(held_out[val:])]}, remark


def _shrunk(val: int, test: int, count: int) -> tuple[int, int]:
    """Two hold-out sizes in the asked proportion, about a quarter of ``count`` together."""
    if count < 3:
        return 0, 0
    factor = (count // 4) / (val + test)
    return tuple(max(1, round(asked * factor)) if asked else 0 for asked in (val, test))
