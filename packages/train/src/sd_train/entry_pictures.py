"""A picture of a data set with its mask: which parts of it are learnt."""

from pathlib import Path

from PIL import Image

from sd_pipeline.picture_opener import (
    Colour,
    PictureError,
    decode_picture,
    on_background,
    open_picture,
)
from sd_train.config import DataConfig
from sd_train.entries import Entry
from sd_train.tar_member import TarMember

_BLACK: Colour = (0, 0, 0)


def open_entry(entry: Entry, config: DataConfig) -> tuple[Image.Image, Image.Image | None]:
    """Open a picture as RGB, and its mask as grey levels of its size: white is learnt, black not.

    The mask is the entry's own, else with `alpha_is_mask` the picture's alpha, else None. Raises
    PictureError for a picture or mask that cannot be read, for a mask of another size and for one
    that leaves nothing.
    """
    from_alpha = config.alpha_is_mask and entry.mask is None
    picture = _opened(entry.path, None if from_alpha else config.background, config)
    mask = None
    if picture.mode == "RGBA":
        mask, picture = picture.getchannel("A"), on_background(picture, config.background)
    if entry.mask is not None:
        mask = _opened_mask(entry, entry.mask, config)
    if mask is not None and mask.size != picture.size:
        what = f"has a mask of {_told(mask)}, but is {_told(picture)}"
        raise PictureError(entry.path, "mask", what, "make them equal")
    if mask is not None and mask.getbbox() is None:
        kind = "is transparent all over" if entry.mask is None else "has a mask all black"
        what = f"{kind}, so nothing of it would be learnt"
        raise PictureError(entry.path, "mask", what, "leave it out or correct it")
    return picture, mask


def _opened_mask(entry: Entry, path: Path | TarMember, config: DataConfig) -> Image.Image:
    try:
        return _opened(path, _BLACK, config).convert("L")
    except PictureError as error:
        what, _, mend = error.reason.rpartition("; ")
        raise PictureError(entry.path, "mask", f"has a mask that {what}", mend) from error


def _opened(path: Path | TarMember, background: Colour | None, config: DataConfig) -> Image.Image:
    if isinstance(path, Path):
        return open_picture(path, background=background, max_pixels=config.max_pixels)
    try:
        content = path.read_bytes()
    except OSError as error:
        what = f"cannot be read from its shard ({error})"
        raise PictureError(path, "missing", what, "put the shard back") from error
    return decode_picture(content, path, background=background, max_pixels=config.max_pixels)


def _told(image: Image.Image) -> str:
    return f"{image.width} x {image.height}"
