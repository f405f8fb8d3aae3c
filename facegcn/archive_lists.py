"""Whether a zip archive's list of entries names all that it holds: entries have checksums, the list has none."""

from __future__ import annotations

import struct
import zipfile

from facegcn.errors import BrokenFile

_LENGTHS = 26  # bytes of an entry's head before the lengths of its name and its extra field (APPNOTE.TXT, 4.3.7)
_DESCRIPTOR = 24  # bytes that may follow an entry


def check_all_listed(path: str, archive: zipfile.ZipFile) -> None:
    """Raises BrokenFile where there is room for an entry that the list does not name.

    Args:
        path: of the archive.
        archive: the same, open.
    """
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    begins, ends = [*(entry.header_offset for entry in entries), archive.start_dir], [0]
    with open(path, "rb") as file:
        for entry in entries:
            file.seek(entry.header_offset + _LENGTHS)
            name, extra = struct.unpack("<HH", file.read(4))
            ends.append(entry.header_offset + _LENGTHS + 4 + name + extra + entry.compress_size)
    if any(begin - end > _DESCRIPTOR for begin, end in zip(begins, ends)):
        raise BrokenFile(path, "has arrays that its list does not name: it is damaged")
