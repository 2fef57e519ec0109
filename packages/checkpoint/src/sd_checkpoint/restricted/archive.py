"""The directory of a zip archive, read strictly.

Only what torch.save writes is let through: nothing compressed or encrypted, one part, no two
entries in one place. So an archive can unpack to no more bytes than it has.
Source: the .ZIP File Format Specification 6.3.10, sections 4.3 and 4.5.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

from .values import RefusedError

__all__ = ["Place", "ReadAt", "read_directory"]

ReadAt = Callable[[int, int], bytes]  # (offset, length) -> bytes

_END = struct.Struct("<4s4H2LH")
_END64_PLACE = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_DIRECTORY = 64 * 2**20
_BIG = 0xFFFFFFFF


class Place(NamedTuple):
    """Where the bytes of an entry lie in the file."""

    offset: int
    length: int


class _Entry(NamedTuple):
    header: int  # where its own header begins
    length: int


def read_directory(read: ReadAt, size: int) -> dict[str, Place]:
    """Return where each entry of the archive of `size` bytes lies; raises `RefusedError`."""
    start, length, number = _find_directory(read, size)
    if length > _MAX_DIRECTORY or start + length > size:
        raise RefusedError(f"its directory should have {length} bytes from byte {start} on")
    data = read(start, length)
    entries: dict[str, _Entry] = {}
    at = 0
    for _ in range(number):
        name, entry, at = _read_entry(data, at)
        if name in entries:
            raise RefusedError(f"it holds {name[:80]!r} twice")
        entries[name] = entry
    return _placed(entries, read, start)


def _find_directory(read: ReadAt, size: int) -> tuple[int, int, int]:
    """Return the directory's first byte, its length and the number of entries in it."""
    tail_start = max(0, size - _END.size - 0xFFFF)
    tail = read(tail_start, size - tail_start)
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or len(tail) - found < _END.size:
        raise RefusedError("the archive has no directory; it has been cut short")
    _, disk, disk_of, number_here, number, length, start, _ = _END.unpack_from(tail, found)
    at = tail_start + found
    if _BIG in (length, start) or number == 0xFFFF:
        return _find_directory64(read, at)
    if disk or disk_of or number != number_here:
        raise RefusedError("the archive is one part of several")
    return start, length, number


def _find_directory64(read: ReadAt, end: int) -> tuple[int, int, int]:
    place = read(max(0, end - _END64_PLACE.size), _END64_PLACE.size)
    if len(place) < _END64_PLACE.size or not place.startswith(b"PK\x06\x07"):
        raise RefusedError("the archive's directory is damaged")
    record = read(_END64_PLACE.unpack(place)[2], _END64.size)
    if len(record) < _END64.size or not record.startswith(b"PK\x06\x06"):
        raise RefusedError("the archive's directory is damaged")
    *_, disk, disk_of, number_here, number, length, start = _END64.unpack(record)
    if disk or disk_of or number != number_here:
        raise RefusedError("the archive is one part of several")
    return start, length, number


def _read_entry(data: bytes, at: int) -> tuple[str, _Entry, int]:
    """Return the name and place of the entry at byte `at`, and where the next begins."""
    if len(data) - at < _ENTRY.size or data[at : at + 4] != b"PK\x01\x02":
        raise RefusedError("the archive's directory is damaged")
    fields = _ENTRY.unpack_from(data, at)
    _, _, _, flags, method, _, _, _, packed, length, *rest = fields
    name_length, extra_length, comment_length, _, _, _, header = rest
    name_end = at + _ENTRY.size + name_length
    extra_end = name_end + extra_length
    if extra_end + comment_length > len(data):
        raise RefusedError("the archive's directory is damaged")
    try:
        name = data[at + _ENTRY.size : name_end].decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedError("the archive has an entry whose name is no text") from None
    big = [value == _BIG for value in (length, packed, header)]
    if any(big):
        wide = iter(_wide_numbers(data[name_end:extra_end], sum(big)))
        length, packed, header = (
            next(wide) if is_big else value
            for is_big, value in zip(big, (length, packed, header), strict=True)
        )
    if method or flags & 1 or packed != length:
        raise RefusedError(
            f"it holds {name[:80]!r} compressed or encrypted, as torch.save never does"
        )
    return name, _Entry(header, length), extra_end + comment_length


def _wide_numbers(extra: bytes, number: int) -> tuple[int, ...]:
    """Return the 64-bit numbers that the extra field 1 holds."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1 and 8 * number <= length <= len(extra) - at - 4:
            return struct.unpack_from(f"<{number}Q", extra, at + 4)
        at += 4 + length
    raise RefusedError("the archive's directory is damaged")


def _placed(entries: dict[str, _Entry], read: ReadAt, end: int) -> dict[str, Place]:
    """Find where the bytes behind each entry's own header begin, from the first on."""
    places = {}
    free = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].header):
        if entry.header < free or entry.header + _LOCAL.size > end:
            raise RefusedError(f"it holds {name[:80]!r} where something else lies")
        local = _LOCAL.unpack(read(entry.header, _LOCAL.size))
        name_length, extra_length = local[-2:]
        offset = entry.header + _LOCAL.size + name_length + extra_length
        free = offset + entry.length
        if local[0] != b"PK\x03\x04" or free > end:
            raise RefusedError(f"it holds {name[:80]!r} where something else lies")
        if read(entry.header + _LOCAL.size, name_length) != name.encode():
            raise RefusedError(f"it holds {name[:80]!r} under two names")
        places[name] = Place(offset, entry.length)
    return places
