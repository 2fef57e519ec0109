"""Picture files, whoever made them: upright, in sRGB or as measured, or refused with the reason."""

import mmap
import stat
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from sd_pipeline.errors import PipelineError
from sd_pipeline.printable import printable

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
MAX_PIXELS = 89_478_485
"""Pillow's own limit, 256 MiB of RGB; beyond twice as many Pillow itself refuses."""
MAX_BYTES = 2**30
"""Some decoders read a file whole before they know what is in it."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_FETCH_AGAIN = "fetch it again or delete it"
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_TILE = 258, 262, (322, 323)
# How ICC calls what Pillow calls L, RGB and CMYK.
_ICC_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}


class PictureError(PipelineError):
    """Say why a file is no picture that can be read: `kind` to count by, `reason` with the mend.

    `file` is its path, or what else it is called.
    """

    def __init__(self, file: object, kind: str, what: str, mend: str) -> None:
        self.kind = kind
        self.reason = f"{what}; {mend}"
        super().__init__(f"{printable(file)} {self.reason}")


def open_picture(
    path: Path, *, background: Colour | None = WHITE, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Open a picture upright as 8-bit sRGB: its first frame, on `background` where transparent.

    Without a background it keeps its alpha: it is RGBA where it has some, else RGB. The file's
    content says its format, not its name. Raises `PictureError` for all that is not a whole picture
    of up to `max_pixels`; the size is read from the header before pixels are decoded.
    """
    _check_file(path)
    try:
        with path.open("rb") as file:
            return _decode(path, file, background, max_pixels)
    except PictureError:
        raise
    except Exception as error:
        # Decoders raise whatever the bytes provoke, from KeyError to struct.error.
        raise _explain(path, error) from error


def open_values(path: Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a measurement, such as a depth map: upright, and else the numbers that the file holds.

    Its mode is the file's own, of 8, 16 or 32 bits; what profiles say is of light, and not heeded.
    Raises `PictureError` as `open_picture` does, and for colour of 16 bits, of which Pillow reads
    the upper 8 alone.
    """
    _check_file(path)
    try:
        with path.open("rb") as file:
            return _decode_values(path, file, max_pixels)
    except PictureError:
        raise
    except Exception as error:
        raise _explain(path, error) from error


def decode_picture(
    content: bytes,
    name: object,
    *,
    background: Colour | None = WHITE,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Open a picture whose file is in memory, as `open_picture` does; errors call it `name`."""
    _check_num_bytes(name, len(content))
    try:
        return _decode(name, BytesIO(content), background, max_pixels)
    except PictureError:
        raise
    except Exception as error:
        raise _explain(name, error) from error


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise PictureError(path, "missing", "does not exist", "name a picture") from error
    except (OSError, ValueError) as error:
        what = f"cannot be reached ({_first_line(error)})"
        raise PictureError(path, "missing", what, "name a file that is there") from error
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        what = "is a folder, pipe or device"
        raise PictureError(path, "not a file", what, "name a file")
    _check_num_bytes(path, status.st_size)


def _check_num_bytes(name: object, num_bytes: int) -> None:
    if num_bytes == 0:
        raise PictureError(name, "empty", "is empty (0 bytes)", _FETCH_AGAIN)
    if num_bytes > MAX_BYTES:
        what = f"has {num_bytes:,} bytes, more than {MAX_BYTES:,}"
        raise PictureError(name, "too many bytes", what, "make it smaller")


def _decode(
    name: object, file: BinaryIO, background: Colour | None, max_pixels: int
) -> Image.Image:
    _check_content(name, file, max_pixels)
    with Image.open(file, formats=_FORMATS) as image:
        if image.mode in ("I", "F"):
            what = f"has 32-bit pixels ({image.mode}), whose black and white are not known"
            raise PictureError(name, "pixel format", what, "save it with 8 or 16 bits a channel")
        _scale_transparent_value(image)
        image.load()
        picture = _in_srgb(_as_8_bit(image), image.info.get("icc_profile"), background)
        turn = _TURNS.get(_orientation(image))
    picture.info = {}  # what it says of profile and rotation is done
    return picture if turn is None else picture.transpose(turn)


def _decode_values(name: object, file: BinaryIO, max_pixels: int) -> Image.Image:
    _check_content(name, file, max_pixels)
    with Image.open(file, formats=_FORMATS) as image:
        if image.tile and ";16" in str(image.tile[0].args) and not image.mode.startswith("I"):
            what = "has colour of 16 bits a channel, of which 8 can be read"
            raise PictureError(name, "pixel format", what, "save it as grey")
        image.load()
        turn = _TURNS.get(_orientation(image))
        return image.copy() if turn is None else image.transpose(turn)


def _check_content(name: object, file: BinaryIO, max_pixels: int) -> None:
    with Image.open(file, formats=_FORMATS) as header:
        _check_head(name, header, max_pixels)
        _check_whole(file, header)
    file.seek(0)


def _check_head(name: object, image: ImageFile.ImageFile, max_pixels: int) -> None:
    sizes = [image.size]
    if image.format == "TIFF":  # a tile may be larger than the picture, and is decoded whole
        tags = image.tag_v2  # type: ignore[attr-defined]
        sizes.append((int(tags.get(_TIFF_TILE[0], 0)), int(tags.get(_TIFF_TILE[1], 0))))
    for width, height in sizes:
        if width * height > max_pixels:
            what = f"has {width} x {height} pixels, more than {max_pixels:,}"
            allowable = width * height <= 2 * MAX_PIXELS
            mend = "make it smaller" + ", or raise max_pixels" * allowable
            raise PictureError(name, "too many pixels", what, mend)


def _check_whole(file: BinaryIO, image: ImageFile.ImageFile) -> None:
    """Raise OSError or SyntaxError for damage over which the decoder would pass in silence."""
    if image.format == "PNG":
        image.verify()  # the checksums, which are not looked at when pixels are decoded
    elif image.format in ("JPEG", "MPO") and not _jpeg_ends(file):
        raise OSError("truncated: the end marker is missing")


def _jpeg_ends(file: BinaryIO) -> bool:
    """Tell whether an end marker follows the picture's data.

    Where a broken download left zeros, libjpeg paints grey and says nothing. Thumbnails in the
    head have end markers of their own, so the search begins at the start of scan.
    """
    if isinstance(file, BytesIO):
        return _scan_ends(file.getvalue())
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _scan_ends(data)


def _scan_ends(data: bytes | mmap.mmap) -> bool:
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xDA:
            break
        # A marker may have any number of fill bytes before it.
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        place += 1 if marker == 0xFF else 2 + length
    return data.find(b"\xff\xd9", place) >= 0


def _scale_transparent_value(image: ImageFile.ImageFile) -> None:
    # Pillow brings PNG's grey of 2 and 4 bits and colour of 16 to 8 bits, but not the one value
    # that means transparent.
    value = image.info.get("transparency")
    if image.format != "PNG" or value is None or not image.tile:
        return
    depth = image.tile[0].args
    if depth == "RGB;16B":
        image.info["transparency"] = tuple(channel >> 8 for channel in value)
    elif depth in ("L;2", "L;4"):
        image.info["transparency"] = value * (85 if depth == "L;2" else 17)


def _as_8_bit(image: ImageFile.ImageFile) -> Image.Image:
    if not image.mode.startswith("I;16"):
        return image
    # Pillow's own conversion cuts everything above 255 off. A table keeps the memory small.
    tags = getattr(image, "tag_v2", {})
    top = 4095 if tags.get(_TIFF_BITS) == (12,) else 65535
    table = np.rint(np.arange(65536) * (255 / top)).clip(0, 255).astype(np.uint8)
    if tags.get(_TIFF_PHOTOMETRIC) == 0:  # white is zero
        table = 255 - table
    values = np.asarray(image)
    grey = Image.fromarray(table[values])
    transparent = image.info.get("transparency")
    if transparent is None:
        return grey
    alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Image.merge("LA", (grey, Image.fromarray(alpha)))


def _in_srgb(image: Image.Image, profile: bytes | None, background: Colour | None) -> Image.Image:
    """Convert colours, and lay what is transparent on the background, if there is one."""
    mode, alpha = image.mode, None
    if image.has_transparency_data:
        image = image if mode == "RGBA" else image.convert("RGBA")
        alpha = image.getchannel("A")
    if mode in ("1", "L", "LA"):
        image = image.convert("L")
    elif mode not in ("CMYK", "LAB"):
        image = image.convert("RGB")
    picture = _to_srgb(image, profile)
    if alpha is None:
        return picture
    picture.putalpha(alpha)
    return picture if background is None else on_background(picture, background)


def on_background(image: Image.Image, background: Colour) -> Image.Image:
    """Return an RGBA picture as RGB, on a colour where it is transparent."""
    colour = Image.new("RGB", image.size, background)
    return Image.composite(image.convert("RGB"), colour, image.getchannel("A"))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert from the embedded profile; one that is broken or not of this mode says nothing."""
    if image.mode == "LAB":
        return _transformed(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            if source.profile.xcolor_space.strip() == _ICC_SPACES[image.mode]:
                return _transformed(image, source)
        except (OSError, ValueError, ImageCms.PyCMSError):
            pass  # as browsers do
    return image.convert("RGB")


def _transformed(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    picture = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    assert picture is not None
    return picture


def _orientation(image: ImageFile.ImageFile) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # EXIF that cannot be read says nothing of the pixels
        return 1


def _explain(name: object, error: Exception) -> PictureError:
    reason = _first_line(error)
    if isinstance(error, UnidentifiedImageError):
        what = "is no PNG, JPEG, WebP, BMP, GIF or TIFF with a whole head"
        mend = "convert it to PNG or delete it"
        return PictureError(
            name, "not a picture", f"{what}, so it is no picture that can be read", mend
        )
    if isinstance(error, Image.DecompressionBombError):
        what = f"has more than {2 * MAX_PIXELS:,} pixels, which no setting allows"
        return PictureError(name, "too many pixels", what, "make it smaller")
    if isinstance(error, PermissionError):
        return PictureError(name, "no permission", "may not be read", "change its permissions")
    if isinstance(error, MemoryError):
        what = "needs more memory than there is"
        return PictureError(name, "too many pixels", what, "make it smaller")
    if isinstance(error, EOFError) or "truncated" in reason.lower():
        return PictureError(name, "truncated", f"ends too early ({reason})", _FETCH_AGAIN)
    return PictureError(name, "damaged", f"is damaged ({reason})", _FETCH_AGAIN)


def _first_line(error: Exception) -> str:
    return printable((str(error) or type(error).__name__).splitlines()[0])
