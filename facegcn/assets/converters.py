"""Which converters make morphable models, and in which version: a model's file says what it was made by."""

from __future__ import annotations

from facegcn.files import code_version

#: Module of each converter, by the name of its command.
CONVERTERS = {name: f"facegcn.assets.{name}" for name in ("bfm09", "bfm17", "ict")}


def converter_version(name: str) -> str:
    """What a model that a converter makes says of it: ``NAME DIGEST``, where DIGEST is that of its code."""
    return f"{name} {code_version(CONVERTERS[name])}"
