"""EXIF data and XMP of WebP files, read without the pixels.

RFC 9649, "WebP Image Format", sections 2.3 to 2.7. Pillow makes room for the whole picture when it
opens one, up to a gigabyte for a file of a few kilobytes.
"""

import os
import struct
from typing import BinaryIO


def is_webp(start: bytes) -> bool:
    """Tell from its first 12 bytes whether a file is WebP."""
    return start[:4] == b"RIFF" and start[8:12] == b"WEBP"


def exif_and_xmp(file: BinaryIO, limit: int) -> tuple[bytes, bytes]:
    """Return a file's EXIF data and XMP, empty where it has none.

    Raises `ValueError` for a file that is cut off, and where one has more than `limit` bytes.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(4)
    (length,) = struct.unpack("<I", file.read(4))
    end = length + 8
    if size < end:
        raise ValueError("it is cut off")
    found: dict[bytes, bytes] = {}
    place = 12
    while place + 8 <= end:
        file.seek(place)
        name, length = struct.unpack("<4sI", file.read(8))
        if place + 8 + length > end:
            raise ValueError("it is cut off")
        if name in (b"EXIF", b"XMP "):
            if length > limit:
                raise ValueError(
                    f"its {name.decode().strip()} has {length:,} bytes; {limit:,} are allowed"
                )
            found.setdefault(name, file.read(length))  # readers ignore a second one
        place += 8 + length + length % 2
    return found.get(b"EXIF", b""), found.get(b"XMP ", b"")
