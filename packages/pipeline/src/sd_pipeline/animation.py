"""Pictures one after the other in one file: GIF, WebP, PNG."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from types import MappingProxyType
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sd_pipeline.errors import PipelineError
from sd_pipeline.file_texts import XMP_KEY
from sd_pipeline.xmp import packet

ANIMATIONS: Mapping[str, str] = MappingProxyType({".gif": "GIF", ".webp": "WEBP", ".png": "PNG"})
"""What Pillow calls the formats, by the endings of their files."""

# ISO 16684-3, 1.1.2: an application extension whose packet stands without sub-blocks; whichever of
# its bytes a reader takes for a length, this trailer leads it to the end.
_GIF_XMP = b"\x21\xff\x0bXMP DataXMP"
_GIF_TRAILER = b"\x01" + bytes(range(255, -1, -1)) + b"\x00"
_GIF_HEAD = 13  # bytes, and then the colours that all pictures share, if there are any


def animation_bytes(images: Sequence[Image.Image], suffix: str, fps: float) -> bytes:
    """Return pictures of one size as a file that shows them over and over, `fps` a second.

    `suffix` is one of `ANIMATIONS`. WebP and PNG keep every pixel; GIF has 256 colours. The file
    bears IPTC's mark of what a trained model made. Raises `PipelineError` for another suffix.
    """
    if suffix not in ANIMATIONS:
        raise PipelineError(
            f"an animation cannot end in {suffix!r}; it must be {', '.join(ANIMATIONS)}"
        )
    kind = ANIMATIONS[suffix]
    options: dict[str, Any] = {}
    if kind == "WEBP":
        options = {"lossless": True, "xmp": packet().encode()}
    elif kind == "PNG":
        options = {"pnginfo": PngInfo()}
        options["pnginfo"].add_itxt(XMP_KEY, packet())
    buffer = BytesIO()
    first, *others = images
    first.save(
        buffer,
        format=kind,
        save_all=True,
        append_images=others,
        duration=round(1000 / fps),
        loop=0,
        **options,
    )
    content = buffer.getvalue()
    return _marked_gif(content) if kind == "GIF" else content


def _marked_gif(content: bytes) -> bytes:
    flags = content[10]
    start = _GIF_HEAD + (3 * 2 ** ((flags & 7) + 1) if flags & 128 else 0)
    return content[:start] + _GIF_XMP + packet().encode() + _GIF_TRAILER + content[start:]
