"""Changes of bytes and of texts, drawn at random; none knows a format."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random

_EXTREMES = (0, 1, 2, 3, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32,
             2 ** 63 - 1, 2 ** 63, 2 ** 64 - 1)
_WIDTHS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_LONGEST = 1 << 20  # bytes of a changed file: doubling it again and again is no new idea
_WORDS = ("nan", "inf", "-inf", "-1", "0", "-0", "1e308", "1e400", "-1e400", "1" + "0" * 400, "9" * 5000, "0x10",
          "1_000", "１２", "٣", "1e-400", "2147483648", "-2147483649", "18446744073709551616", "1.", ".5", "+-1", "1,5",
          "", " ", "\t", "\0", "\x1a", "\x85", "\u2028", "\ufeff", "\ud7ff", "\U0010ffff", "%s%n", "{0}", "..", "../x",
          "/etc/passwd", "\\\\x\\y", "C:x", "a" * 300, "#", "'", '"', ";", ",", ":", "true", "null", "~", "None")


# ---------------------------------------------------------------- bytes
def _flip(rng, data, _):
    at = rng.randrange(len(data))
    data[at] ^= 1 << rng.randrange(8)


def _byte(rng, data, _):
    data[rng.randrange(len(data))] = rng.choice((0, 255, rng.randrange(256)))


def _cut(rng, data, _):
    del data[rng.randrange(len(data)):]


def _remove(rng, data, _):
    at = rng.randrange(len(data))
    del data[at:at + _length(rng, data)]


def _repeat(rng, data, _):
    at = rng.randrange(len(data))
    part = data[at:at + _length(rng, data)]
    data[at:at] = part * rng.choice((1, 1, 2, 50))


def _insert(rng, data, _):
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice((rng.randbytes(rng.randint(1, 16)), bytes(rng.randint(1, 64)),
                              b"\xff" * rng.randint(1, 9)))


def _blot(rng, data, _):
    at = rng.randrange(len(data))
    end = min(len(data), at + _length(rng, data))
    data[at:end] = rng.choice((bytes(end - at), b"\xff" * (end - at), rng.randbytes(end - at)))


def _number(rng, data, _):
    """A number where one may stand, extreme or a little off: sizes, counts and offsets."""
    width = rng.choice((1, 2, 4, 4, 8))
    if len(data) < width:
        return
    at = rng.randrange(len(data) - width + 1)
    at -= at % width if rng.random() < 0.5 and at % width <= at else 0
    order = rng.choice("<>") + _WIDTHS[width]
    before, = struct.unpack_from(order, data, at)
    near = before + rng.choice((-1, 1, -2, 2, 16, -16)), before * 2, before // 2, -before
    value = rng.choice(near) if rng.random() < 0.4 else rng.choice(_EXTREMES)
    struct.pack_into(order, data, at, value % (1 << 8 * width))


def _move(rng, data, _):
    at, length = rng.randrange(len(data)), _length(rng, data)
    part = data[at:at + length]
    del data[at:at + length]
    to = rng.randrange(len(data) + 1)
    data[to:to] = part


def _splice(rng, data, other):
    """The beginning of one file and the end of another, or a part of it in its place."""
    if rng.random() < 0.5:
        data[rng.randrange(len(data) + 1):] = other[rng.randrange(len(other) + 1):]
    else:
        at, length = rng.randrange(len(data)), _length(rng, data)
        data[at:at + length] = other[at:at + length]


def _length(rng, data):
    return rng.choice((1, 2, 4, 8, rng.randint(1, 64), rng.randint(1, max(1, len(data)))))


_BYTE_CHANGES = (_flip, _flip, _byte, _byte, _number, _number, _number, _cut, _remove, _repeat, _insert, _blot, _move,
                 _splice)


def damaged(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Bytes after one to four changes.

    Args:
        rng: decides.
        data: a file's content.
        others: of files of its kind, for splices.
    """
    return _changed(rng, bytearray(data), others, _BYTE_CHANGES)


def _changed(rng, data, others, changes: Sequence[Callable]) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        if not data:
            break
        rng.choice(changes)(rng, data, rng.choice(others))
        del data[_LONGEST:]
    return bytes(data)


# ---------------------------------------------------------------- texts
def _word(rng, data, _):
    """Another word in the place of one."""
    at, end = _word_at(rng, data)
    data[at:end] = _encoded(rng.choice(_WORDS))


def _word_inserted(rng, data, _):
    at = rng.randrange(len(data) + 1)
    data[at:at] = _encoded(rng.choice(_WORDS))


def _word_again(rng, data, other):
    """A word of this file or another in the place of one: the right kind in the wrong place."""
    start, stop = _word_at(rng, other)
    at, end = _word_at(rng, data)
    data[at:end] = other[start:stop]


def _line(rng, data, other):
    """Lines lost, doubled, swapped, joined, or taken from another file."""
    lines = bytes(data).splitlines(keepends=True)
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    way = rng.randrange(5)
    if way == 0:
        del lines[at]
    elif way == 1:
        lines.insert(to, lines[at])
    elif way == 2:
        lines[at], lines[to] = lines[to], lines[at]
    elif way == 3:
        lines[at] = lines[at].rstrip(b"\r\n")
    else:
        lines.insert(to, rng.choice(bytes(other).splitlines(keepends=True) or [b""]))
    data[:] = b"".join(lines)


def _deep(rng, data, _):
    """Brackets in brackets."""
    at, depth = rng.randrange(len(data) + 1), rng.choice((3, 100, 20_000))
    opening, closing = rng.choice((("[", "]"), ("{", "}"), ("{a: ", "}"), ("(", ")"), ("- ", ""), ('"', '"')))
    data[at:at] = (opening * depth + closing * depth * rng.randint(0, 1)).encode()


def _recoded(rng, data, _):
    """Another encoding, or other ends of lines."""
    text = bytes(data).decode("utf-8", "replace")
    way = rng.randrange(4)
    if way == 0:
        data[:] = text.encode("utf-16")
    elif way == 1:
        data[:] = b"\xef\xbb\xbf" + bytes(data)
    elif way == 2:
        data[:] = text.replace("\n", rng.choice(("\r", "\r\n", "\n\n", "\u2028"))).encode()
    else:
        data[:] = text.replace(".", ",").encode()


def _word_at(rng, data):
    """Where some word begins and ends."""
    letters = b" \t\r\n,;:=[]{}"
    if not data:
        return 0, 0
    at = rng.randrange(len(data))
    end = at
    while at > 0 and data[at - 1] not in letters:
        at -= 1
    while end < len(data) and data[end] not in letters:
        end += 1
    return at, end


def _encoded(word):
    return word.encode("utf-8", "surrogatepass")


_TEXT_CHANGES = (_word, _word, _word, _word_inserted, _word_again, _word_again, _line, _line, _line, _deep, _recoded,
                 _flip, _byte, _cut, _remove, _repeat, _splice)


def misspelt(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A text after one to four changes of letters, words, lines or its encoding; as ``damaged``."""
    return _changed(rng, bytearray(data), others, _TEXT_CHANGES)
