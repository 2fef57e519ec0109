"""The texts that a picture's file carries, whatever its format, read without its pixels."""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from sd_pipeline.errors import PipelineError
from sd_pipeline.exif import texts_in
from sd_pipeline.png_texts import SIGNATURE, read_chunks
from sd_pipeline.webp_chunks import exif_and_xmp, is_webp
from sd_pipeline.xmp import record_in

RECORD_KEY = "sd-record"
SHEET_KEY = "sd-sheet"
XMP_KEY = "XML:com.adobe.xmp"

_EXIF_KEY = "eXIf"
_MAX_TEXT = 16 * 2**20
_MAX_FILE = 2**30
_JPEG_TAIL = 2**16
_END_OF_IMAGE = b"\xff\xd9"


def read_texts(path: Path, keys: Iterable[str]) -> dict[str, str]:
    """Return the texts under `keys`: of PNG's chunks, of EXIF data, and our record from XMP.

    Raises `PipelineError` when the file is missing, cut off, no picture, or has a text of more than
    16 MiB.
    """
    if not path.is_file():
        reason = "is a folder, pipe or device; name a file"
        if not path.exists():
            reason = "does not exist; name a picture"
        raise PipelineError(f"{path} {reason}")
    try:
        found: dict[str, bytes] = {}
        with path.open("rb") as file:
            start = file.read(12)
            if start.startswith(SIGNATURE):
                file.seek(len(SIGNATURE))
                found = read_chunks(file, {*keys, XMP_KEY, _EXIF_KEY}, _MAX_TEXT)
                exif, xmp = found.pop(_EXIF_KEY, b""), found.pop(XMP_KEY, b"")
            elif is_webp(start):
                exif, xmp = exif_and_xmp(file, _MAX_TEXT)
            else:
                exif, xmp = _other(path)
        texts = {key: text.decode() for key, text in found.items()}
        record = record_in(_bounded(xmp, "XMP"))
        told = {} if record is None else {RECORD_KEY: record}
        return {**_from_exif(_bounded(exif, "EXIF data")), **told, **texts}
    except Exception as error:  # a spoilt file makes decoders raise whatever they please
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PipelineError(f"{path} is no picture that can be read ({reason})") from error


def _other(path: Path) -> tuple[bytes, bytes]:
    size = path.stat().st_size
    if size > _MAX_FILE:
        raise ValueError(f"it has {size:,} bytes; {_MAX_FILE:,} are allowed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, that a picture is large
        with Image.open(path) as image:
            exif, xmp = image.info.get("exif", b""), image.info.get("xmp", b"")
            is_jpeg = image.format in ("JPEG", "MPO")
    if is_jpeg and not _has_end(path, size):
        raise ValueError("it is cut off")
    return exif, xmp


def _has_end(path: Path, size: int) -> bool:
    """Tell whether a JPEG file's data come to their end, after which some programs add more."""
    with path.open("rb") as file:
        file.seek(-min(size, _JPEG_TAIL), os.SEEK_END)
        return _END_OF_IMAGE in file.read()


def _bounded(data: bytes, what: str) -> bytes:
    if len(data) > _MAX_TEXT:
        raise ValueError(f"its {what} has {len(data):,} bytes; {_MAX_TEXT:,} are allowed")
    return data


def _from_exif(data: bytes) -> dict[str, str]:
    exif = Image.Exif()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, that EXIF data are not as they should be
        try:
            exif.load(data)
            return dict(texts_in(exif))
        except Exception:  # whatever spoilt data make of it: the record may be whole
            return {}
