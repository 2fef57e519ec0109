"""The bytes of a picture's file, with everything that made it."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sd_pipeline.errors import PipelineError
from sd_pipeline.exif import with_comment
from sd_pipeline.file_texts import RECORD_KEY, SHEET_KEY, XMP_KEY
from sd_pipeline.images import pixel_hash
from sd_pipeline.picture_format import PictureFormat
from sd_pipeline.record import Record
from sd_pipeline.xmp import packet

# What a segment of a JPEG file holds beside its length (ITU T.81, B.1.1.4) and XMP's name.
_SEGMENT = 65_533
_XMP_SEGMENT = _SEGMENT - len(b"http://ns.adobe.com/xap/1.0/\0")
_LARGEST = 2**63 - 1


def picture_bytes(image: Image.Image, record: Record, file_format: PictureFormat) -> bytes:
    """Return a picture as a file that tells its record.

    PNG has it as text chunks; JPEG and WebP have the web UI's text as EXIF UserComment, where that
    looks for it, and the record as XMP. Raises `PipelineError` where the format cannot hold them.
    """
    chunks = _chunks(record, file_format, pixel_hash(image))
    _check_size(chunks, file_format)
    return file_format.encode(image, **chunks)


def sheet_bytes(image: Image.Image, first: Record, script: Mapping[str, str]) -> bytes:
    """Return a sheet of pictures as a PNG file.

    It tells as the web UI's grids do: the `parameters` of its first picture, and after them what
    was varied and how; and once more under a key of ours, which says whose sheet it is. There is no
    record in it, for no single run makes it again.
    """
    info, told = PngInfo(), first.parameters(script)
    info.add_itxt("parameters", told)
    info.add_itxt(SHEET_KEY, told)
    info.add_itxt(XMP_KEY, packet())
    return PictureFormat().encode(image, pnginfo=info)


def check_fits(record: Record, file_format: PictureFormat) -> None:
    """Find out before the work whether a format's files hold a record, whatever its seed.

    Of JPEG that is not said: a segment has 64 KiB, which long prompts fill. Raises `PipelineError`.
    """
    longest = replace(record, seed=_LARGEST, batch_seed=_LARGEST, batch_size=_LARGEST)
    _check_size(_chunks(longest, file_format, "0" * 64), file_format)


def _chunks(record: Record, file_format: PictureFormat, pixels: str) -> dict[str, Any]:
    told = record.json(pixels=pixels, encoding=asdict(file_format))
    if file_format.name == "png":
        info = PngInfo()
        info.add_itxt("parameters", record.parameters())
        info.add_itxt(RECORD_KEY, told)
        info.add_itxt(XMP_KEY, packet())
        return {"pnginfo": info}
    return {"exif": with_comment(record.parameters()), "xmp": packet(told).encode()}


def _check_size(chunks: dict[str, Any], file_format: PictureFormat) -> None:
    if file_format.name != "jpeg":
        return
    # XMP has a form that goes over several segments, which few programs read and Pillow does not
    # write; and the text in EXIF has none.
    for what, limit in (("exif", _SEGMENT), ("xmp", _XMP_SEGMENT)):
        size = len(chunks[what])
        if size > limit:
            raise PipelineError(
                f"the prompts and settings take {size:,} bytes of {what.upper()}; a JPEG file "
                f"holds {limit:,}; shorten the prompts, or choose png or webp"
            )
