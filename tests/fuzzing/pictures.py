"""Changes of picture files that know a little of their formats: sizes that say too much, checksums set right again."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Sequence
from random import Random

import numpy as np
from PIL import Image

from tests.fuzzing.changes import damaged

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SIDES = (0, 1, 2, 3, 255, 65535, 20_000, 100_000, 2 ** 31 - 1, 2 ** 32 - 1)


def changed_png(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A damaged PNG; half of them with right checksums, so that the damage reaches the decoder."""
    if rng.random() < 0.5 or not data.startswith(_SIGNATURE):
        return damaged(rng, data, others)
    chunks = png_chunks(data)
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(chunks))
        kind, content = chunks[at]
        way = rng.randrange(6)
        if kind == b"IHDR" and way < 4:
            fields = list(struct.unpack(">IIBBBBB", content)) if len(content) == 13 else [1, 1, 8, 2, 0, 0, 0]
            fields[rng.randrange(2)] = rng.choice(_SIDES)
            if rng.random() < 0.3:
                fields[rng.randrange(2, 7)] = rng.randrange(18)
            chunks[at] = kind, struct.pack(">IIBBBBB", *fields)
        elif way == 4:
            chunks.insert(rng.randrange(len(chunks) + 1), _odd_chunk(rng))
        elif way == 5:
            del chunks[at]
            if not chunks:
                break
        elif content:
            chunks[at] = kind, damaged(rng, content, [content])
    return _SIGNATURE + b"".join(png_chunk(*chunk) for chunk in chunks)


def _odd_chunk(rng) -> tuple[bytes, bytes]:
    """A chunk that some decoder believes too much."""
    long = _zeros(rng.choice((10, 1 << 20, 20 << 20)))
    return rng.choice(((b"tRNS", rng.randbytes(3)), (b"PLTE", rng.randbytes(9)), (b"iCCP", b"x\0\0" + long),
                       (b"zTXt", b"x\0\0" + long), (b"iTXt", b"x\0\1\0\0\0" + long), (b"eXIf", rng.randbytes(40)),
                       (b"acTL", struct.pack(">II", 2 ** 31 - 1, 0)), (b"fcTL", bytes(26)), (b"IDAT", rng.randbytes(9)),
                       (b"gAMA", bytes(4)), (b"pHYs", b"\xff" * 9), (b"cHRM", bytes(3)), (b"IEND", b"")))


@functools.cache
def _zeros(count: int) -> bytes:
    """So many zeros, packed: what a decoder is to unpack."""
    return zlib.compress(bytes(count), 9)


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(kind, content) of each chunk of a sound PNG."""
    found, at = [], len(_SIGNATURE)
    while at + 8 <= len(data):
        length, = struct.unpack_from(">I", data, at)
        found.append((data[at + 4:at + 8], data[at + 8:at + 8 + length]))
        at += 12 + length
    return found


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bytes(image: np.ndarray) -> bytes:
    """A sound PNG of a picture (h, w) or (h, w, 3) uint8."""
    held = io.BytesIO()
    Image.fromarray(image).save(held, "PNG")
    return held.getvalue()
