"""Picture files written byte by byte, as no kind program would write them."""

import struct
import zlib

from PIL import ImageCms

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png(size: tuple[int, int], depth: int, colour: int, rows: list[bytes], **extra: bytes) -> bytes:
    """Write a PNG; `extra` are chunks that go before the pixels, by name."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    middle = b"".join(chunk(name.encode(), content) for name, content in extra.items())
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + middle
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


def swapped_profile() -> bytes:
    """Return the profile of a space that calls sRGB's green red and its red green."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return srgb.replace(b"rXYZ", b"____").replace(b"gXYZ", b"rXYZ").replace(b"____", b"gXYZ")


def linear_grey_profile() -> bytes:
    """Return the ICC profile of grey in which half the number is half the light."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, 256, 0)
    text = b"text\0\0\0\0grey\0\0\0\0"
    tags = {b"desc": text, b"wtpt": white, b"kTRC": curve}
    table, content, place = b"", b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", place + len(content), len(value))
        content += value
    header = struct.pack(
        ">I4sI4s4s4s12s4s4sIIIQI3i",
        place + len(content), b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ", b"\0" * 12,
        b"acsp", b"\0" * 4, 0, 0, 0, 0, 0, 63190, 65536, 54061,
    )  # fmt: skip
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + content


def bombs() -> dict[str, bytes]:
    """Return small files whose heads promise more pixels than any memory holds."""
    from io import BytesIO

    from PIL import Image

    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 322: 60000, 323: 60000, 324: 8, 325: 99}
    found = {
        "tiles.tiff": tiff(tags),
        "bomb.png": png((60000, 60000), 8, RGB, [b"\0" * 100]),
        "just_above.png": png((10000, 10000), 1, GREY, [b"\0" * 1250] * 10),
        "bomb.gif": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;",
    }
    small = {}
    for kind in ("JPEG", "BMP", "TIFF", "WEBP"):
        buffer = BytesIO()
        Image.new("RGB", (40, 24), "red").save(buffer, kind, lossless=True)
        small[kind] = buffer.getvalue()
    frame = small["JPEG"].index(b"\xff\xc0")
    found["bomb.jpg"] = _overwritten(small["JPEG"], frame + 5, b"\xff\xdc\xff\xdc")
    found["bomb.bmp"] = _overwritten(small["BMP"], 18, struct.pack("<ii", 60000, 60000))
    found["bomb.tiff"] = _with_tags(small["TIFF"], {256: 60000, 257: 60000})
    signature = small["WEBP"].index(b"\x2f", 20)
    found["bomb.webp"] = _overwritten(small["WEBP"], signature + 1, b"\xff\xff\xff\x0f")
    return found


def white_is_zero(tiff: bytes) -> bytes:
    """Return a little-endian TIFF that says that 0 is white."""
    return _with_tags(tiff, {262: 0})


def tiff(tags: dict[int, int], strip: bytes = b"") -> bytes:
    """Write a little-endian TIFF of tags, which rise, and where there is one of a strip."""
    if strip:
        tags = dict(sorted({**tags, 273: 14 + 12 * (len(tags) + 2), 279: len(strip)}.items()))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    return head + strip


def _overwritten(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


def _with_tags(tiff: bytes, values: dict[int, int]) -> bytes:
    start = struct.unpack_from("<I", tiff, 4)[0]
    for number in range(struct.unpack_from("<H", tiff, start)[0]):
        place = start + 2 + 12 * number
        tag = struct.unpack_from("<H", tiff, place)[0]
        if tag in values:
            tiff = _overwritten(tiff, place + 2, struct.pack("<HII", 4, 1, values[tag]))
    return tiff
