"""EXIF data of pictures: the web UI's text in JPEG and WebP files, ComfyUI's graphs in WebP.

CIPA DC-008, "Exchangeable image file format", sections 4.6.2 and 4.6.6.
"""

import struct
from collections.abc import Iterator

from PIL import Image

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_LONG, _UNDEFINED = 4, 7
_UNICODE = b"UNICODE\0"
_CODES = (_UNICODE, b"ASCII\0\0\0", bytes(8))
_SETTINGS = "Steps:"


def with_comment(text: str) -> bytes:
    """Return EXIF data whose UserComment is a text, as the web UI writes and reads it with piexif.

    That is big-endian UTF-16 without a mark of its order, of type UNDEFINED: under another type
    piexif gives no bytes. Pillow's own writer would make it BYTE.
    """
    comment = _UNICODE + text.encode("utf-16-be", "replace")
    # A TIFF header, a directory with the one entry that points to the next, and that one's entry.
    directories = struct.pack(
        ">2sHI HHHIII HHHIII",
        *(b"MM", 42, 8),
        *(1, _EXIF_IFD, _LONG, 1, 26, 0),
        *(1, _USER_COMMENT, _UNDEFINED, len(comment), 44, 0),
    )
    return b"Exif\0\0" + directories + comment


def texts_in(exif: Image.Exif) -> Iterator[tuple[str, str]]:
    """Yield what programs wrote into EXIF data: `parameters`, `prompt` and `workflow`."""
    comment = exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT) or exif.get(_USER_COMMENT)
    if isinstance(comment, bytes | str):
        text = _decoded(comment.encode("latin-1") if isinstance(comment, str) else comment)
        if text is not None:
            yield "parameters", text
    for value in exif.values():
        # ComfyUI fills Model with "prompt:{...}", Make with "workflow:{...}", and others below.
        if isinstance(value, str):
            key, _, graph = value.partition(":")
            if key.lower() in ("prompt", "workflow") and graph.lstrip().startswith("{"):
                yield key.lower(), graph


def _decoded(comment: bytes) -> str | None:
    """Return a UserComment that has the web UI's settings, None for any other.

    The eight bytes before it that name its encoding are often wrong, or lack, and say nothing of
    the order of UTF-16's bytes, of which there are both; so what reads as settings is right.
    """
    body = comment[8:] if comment.startswith(_CODES) else comment
    for encoding in ("utf-16-be", "utf-16-le", "utf-8"):
        text = body.decode(encoding, "replace").rstrip("\0").removeprefix("\ufeff")
        if _SETTINGS in text:
            return text
    return None
