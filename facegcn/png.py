"""PNG files (W3C's specification, third edition) of 8-bit pictures, written fast.

Most of a PNG's time goes into zlib. ISA-L's, which gives the same kind of stream, takes a fifth of it and makes files a
little smaller; where there is none, Python's own is used. Each row is written as its difference from the one above,
which suits pictures of faces as well as trying all five filters does.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np

try:
    from isal import isal_zlib as _deflate
except ImportError:  # it has no wheel for every machine
    _deflate = zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOR_TYPES = {1: 0, 3: 2, 4: 6}  # by channels: grey, RGB, RGBA
_UP = 2  # the filter
_LEVEL = 1  # of zlib and ISA-L: higher ones take longer for a few percent


def png_bytes(image: np.ndarray, text: Mapping[str, str] | None = None) -> bytes:
    """The file of a picture.

    Args:
        image: (H, W), (H, W, 3) RGB or (H, W, 4) RGBA, uint8.
        text: chunks of Latin-1 text by key, such as ``report.CROP_TEXT``.

    Raises:
        ValueError: another shape or type, or no pixel.
    """
    image = np.asarray(image)
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or image.dtype != np.uint8 or channels not in _COLOR_TYPES or not image.size:
        raise ValueError(f"a PNG is made of (H, W), (H, W, 3) or (H, W, 4) uint8, got {image.shape} {image.dtype}")
    height, width = image.shape[:2]
    rows = np.ascontiguousarray(image).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0], filtered[0, 1:] = _UP, rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOR_TYPES[channels], 0, 0, 0)
    words = (_chunk(b"tEXt", f"{key}\0{value}".encode("latin-1")) for key, value in (text or {}).items())
    return b"".join([_SIGNATURE, _chunk(b"IHDR", header), *words,
                     _chunk(b"IDAT", _deflate.compress(filtered.data, _LEVEL)), _chunk(b"IEND", b"")])


def _chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk: length, kind, data, checksum of the last two."""
    return b"".join([struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))])
