"""The released code's packed images: headerless float32 records, read so that they can be packed anew."""

from __future__ import annotations

import os

import numpy as np

from facegcn.errors import BinFileError


def open_legacy(path: str, size: int) -> np.ndarray:
    """The released code's headerless layout as a read-only memory map (count, size, size, 4) float32.

    The layout: RGBA records one after the other, RGB in [-1, 1], alpha in [0, 1].

    Raises:
        BinFileError: absent, or its length is no multiple of a record of this size.
    """
    record_bytes = size * size * 4 * 4
    if os.path.exists(path) and not os.path.isfile(path):
        raise BinFileError(f"{path} is a folder or a pipe, no file of the released code's layout")
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
