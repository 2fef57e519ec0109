"""Text chunks of PNG files, read without the pixels.

W3C, "Portable Network Graphics (PNG) Specification (Third Edition)", sections 5 and 11.3.3. Pillow
would decode every pixel to reach the chunks behind them: half a gigabyte for a file of a few
kilobytes.
"""

import struct
import zlib
from collections.abc import Container
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_MAX_KEYWORD = 79


def read_chunks(file: BinaryIO, keys: Container[str], limit: int) -> dict[str, bytes]:
    """Return the texts under `keys` as UTF-8, and EXIF data under "eXIf", each up to `limit` bytes.

    `file` stands behind the signature. Of a key that is there twice the last counts, as in Pillow.
    Raises `ValueError` for a file that is cut off, a text that is longer, and a broken chunk.
    """
    texts: dict[str, bytes] = {}
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it is cut off")
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return texts
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"eXIf"):
            file.seek(length + 4, 1)
            continue
        key = "eXIf" if kind == b"eXIf" else _keyword(file, length)
        if key not in keys:
            file.seek(length + 4, 1)
            continue
        if length > limit:
            raise ValueError(f"its {key} has {length:,} bytes; {limit:,} are allowed")
        data = file.read(length)
        checksum = file.read(4)
        if len(checksum) < 4:
            raise ValueError("it is cut off")
        if zlib.crc32(data, zlib.crc32(kind)) != int.from_bytes(checksum, "big"):
            raise ValueError(f"its {key} is spoilt: the checksum does not fit")
        texts[key] = data if kind == b"eXIf" else _text(kind, data, key, limit)


def _keyword(file: BinaryIO, length: int) -> str:
    start = file.tell()
    key, _, _ = file.read(min(length, _MAX_KEYWORD + 1)).partition(b"\0")
    file.seek(start)
    return key.decode("latin-1")


def _text(kind: bytes, data: bytes, key: str, limit: int) -> bytes:
    _, _, body = data.partition(b"\0")
    if kind == b"tEXt":
        return body.decode("latin-1").encode()
    if kind == b"zTXt":
        return _inflated(body[1:], key, limit).decode("latin-1").encode()
    compressed, rest = body[:1] == b"\1", body[2:].split(b"\0", 2)  # a language, the key in it
    if len(rest) < 3:
        raise ValueError(f"its {key} is spoilt: it has no text")
    return _inflated(rest[2], key, limit) if compressed else rest[2]


def _inflated(data: bytes, key: str, limit: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise ValueError(f"its {key} is spoilt: {error}") from error
    if len(text) > limit:
        raise ValueError(f"its {key} grows beyond {limit:,} bytes, which are allowed")
    if not inflater.eof:
        raise ValueError(f"its {key} is cut off")
    return text
