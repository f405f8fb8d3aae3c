"""What the bytes of a texture are."""

_STARTS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def picture_type(data: bytes) -> str:
    """``image/png`` or ``image/jpeg``, by the first bytes of a file.

    Raises:
        ValueError: it is neither.
    """
    for start, kind in _STARTS.items():
        if data.startswith(start):
            return kind
    raise ValueError("a texture must be the bytes of a PNG or JPEG file")
