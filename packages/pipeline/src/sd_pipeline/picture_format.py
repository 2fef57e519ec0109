"""The formats that pictures are written in: PNG, JPEG and WebP."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from PIL import Image

from sd_pipeline.errors import PipelineError

FormatName = Literal["png", "jpeg", "webp"]
FORMATS: tuple[FormatName, ...] = get_args(FormatName)

_SUFFIXES: Mapping[str, FormatName] = MappingProxyType(
    {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
)
_JPEG_QUALITY = 95


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureFormat:
    """Say how a picture is written.

    `quality` is from 1 to 100. None is 95 for JPEG, whose colours always have all their pixels
    (4:4:4), and no loss for WebP; PNG has no loss and takes no quality. Raises `PipelineError` for
    another name or quality.
    """

    name: FormatName = "png"
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.name not in FORMATS:
            raise PipelineError(f"the format is {self.name!r}; it must be {', '.join(FORMATS)}")
        if self.quality is None:
            return
        if self.name == "png":
            raise PipelineError("PNG keeps every pixel and takes no quality; choose jpeg or webp")
        if not 1 <= self.quality <= 100:
            raise PipelineError(f"the quality is {self.quality}; it must be from 1 to 100")

    @classmethod
    def of(
        cls, out: Path, name: FormatName | None = None, quality: int | None = None
    ) -> "PictureFormat":
        """Choose the format of pictures that go to `out`.

        A file's suffix says which; in a folder `name` does, or else it is PNG. Raises
        `PipelineError` for a suffix of no format, and where `name` is not the suffix's.
        """
        if is_file_name(out):
            suffix = out.suffix.lower()
            if name is not None and name != _SUFFIXES[suffix]:
                raise PipelineError(
                    f"--out {out} is {_SUFFIXES[suffix]}, and {name} was asked for; name but one"
                )
            name = _SUFFIXES[suffix]
        return cls(name=name or "png", quality=quality)

    @property
    def suffix(self) -> str:
        """The ending of the names of new files."""
        return ".jpg" if self.name == "jpeg" else f".{self.name}"

    @property
    def lossless(self) -> bool:
        """Whether a file's pixels are those that were drawn."""
        return self.name == "png" or (self.name == "webp" and self.quality is None)

    def __str__(self) -> str:
        """Return the format in words, such as "JPEG of quality 95"."""
        title = {"png": "PNG", "jpeg": "JPEG", "webp": "WebP"}[self.name]
        return title if self.lossless else f"{title} of quality {self.quality or _JPEG_QUALITY}"

    def encode(self, image: Image.Image, **chunks: Any) -> bytes:
        """Return a picture as a file's bytes; `chunks` are what Pillow's writer puts beside it.

        Raises `PipelineError` where the format cannot hold the picture.
        """
        options: dict[str, Any] = {}
        if self.name == "jpeg":
            options = {"quality": self.quality or _JPEG_QUALITY, "subsampling": "4:4:4"}
        elif self.name == "webp":
            options = {"lossless": self.lossless} | (
                {} if self.quality is None else {"quality": self.quality}
            )
        buffer = BytesIO()
        try:
            image.save(buffer, format=self.name.upper(), **options, **chunks)
        except (OSError, ValueError) as error:
            raise PipelineError(
                f"a picture of {image.width} x {image.height} pixels in mode {image.mode} cannot "
                f"be written as {self} ({error}); choose png"
            ) from error
        return buffer.getvalue()

    def through(self, image: Image.Image) -> Image.Image:
        """Return a picture as a file of this format gives it back."""
        return Image.open(BytesIO(self.encode(image))).convert("RGB")


def is_file_name(out: Path) -> bool:
    """Tell whether `out` is a picture's file, and not a folder.

    Raises `PipelineError` for a suffix of no format, unless there is a folder of that name.
    """
    if out.is_dir() or not out.suffix:
        return False
    if out.suffix.lower() not in _SUFFIXES:
        raise PipelineError(
            f"--out {out} ends in {out.suffix}; a picture's file ends in {', '.join(_SUFFIXES)}, "
            "and a new folder's name has no dot"
        )
    return True
