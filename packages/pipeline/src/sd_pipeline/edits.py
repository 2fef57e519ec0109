"""Pictures that are begun with a picture: what of it is drawn, and how that is set back."""

from dataclasses import dataclass
from typing import Any

from PIL import Image

from sd_pipeline.autoencoding import Tiling
from sd_pipeline.begin import Source
from sd_pipeline.depth import depth_of, to_depth
from sd_pipeline.images import (
    blurred,
    bring_to,
    filled_up,
    flatten,
    mask_of,
    paste,
    pixel_hash,
    to_mask,
    to_pixels,
)
from sd_pipeline.request import Img2Img, Inpaint, Outpaint, Txt2Img

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels; the last two are the first beyond."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Hold what an inpainted picture is set back into.

    `mask` says how much of it is seen, None is all. `box` is where it belongs in the whole;
    `enlarged`, it was drawn at another size.
    """

    whole: Image.Image
    box: Box
    enlarged: bool
    mask: Image.Image | None


def img2img_source(request: Img2Img, factor: int, tiling: Tiling) -> Source:
    """Return what an img2img begins with; the arguments are as in `inpaint_source`.

    A `strength` of None is 1: all steps are taken.
    """
    (width, height), image, latent_size = request.size, flatten(request.image), None
    if request.resize == "latent":
        latent_size = height // factor, width // factor
        width, height = (side // factor * factor for side in image.size)
    depth = None
    if request.depth is not None:
        depth = to_depth(request.depth, image.size, (width, height), request.fit)
    return Source(
        pixels=to_pixels(bring_to(image, width, height, request.fit)),
        strength=1.0 if request.strength is None else request.strength,
        latent_size=latent_size,
        depth=depth,
        tiling=tiling,
    )


def inpaint_source(
    request: Inpaint, factor: int, side: int, tiling: Tiling
) -> tuple[Source, Place]:
    """Return what an inpainting begins with, and where its pictures belong.

    `factor` is a latent's pixels, `side` the model's own size, to which a part is enlarged; the
    picture is encoded as `tiling` says.
    """
    assert request.strength is not None, "which a request for an inpainting or plain model has"
    image, mask = flatten(request.image), mask_of(request.mask or request.image)
    if request.margin is None and (request.width is not None or request.height is not None):
        image = bring_to(image, *request.size, request.fit)
        mask = bring_to(mask, *request.size, request.fit)
    soft = blurred(mask, request.mask_blur) if request.keep_outside else None
    box = (0, 0, *image.size)
    part, part_mask = image, mask
    if request.margin is not None:
        size = (request.width or side, request.height or side)
        box = box_around(mask, request.margin, size)
        part = image.crop(box).resize(size, Image.Resampling.LANCZOS)
        part_mask = mask.crop(box).resize(size, Image.Resampling.BILINEAR)
    source = Source(
        pixels=to_pixels(filled_up(part, factor)),
        strength=request.strength,
        mask=to_mask(filled_up(part_mask, factor)),
        tiling=tiling,
    )
    return source, Place(whole=image, box=box, enlarged=request.margin is not None, mask=soft)


def box_around(mask: Image.Image, margin: int, size: tuple[int, int]) -> Box:
    """Return the box of a mask's white and a margin, of the proportions of `size` if there is room.

    It is grown on both sides, and moved inwards where the picture ends.
    """
    found = mask.point(lambda level: 255 * (level >= 128)).getbbox()
    assert found is not None, "a request without white in its mask is refused"
    left, top, right, bottom = found
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    scale = max(width / size[0], height / size[1])
    width = min(max(round(size[0] * scale), width), mask.width)
    height = min(max(round(size[1] * scale), height), mask.height)
    left = min(max((left + right - width) // 2, 0), mask.width - width)
    top = min(max((top + bottom - height) // 2, 0), mask.height - height)
    return left, top, left + width, top + height


def set_back(drawn: Image.Image, place: Place) -> Image.Image:
    """Return the whole picture with what was drawn in its place."""
    left, top, right, bottom = place.box
    size = (right - left, bottom - top)
    if place.enlarged:
        new = place.whole.copy()
        new.paste(drawn.resize(size, Image.Resampling.LANCZOS), (left, top))
    else:
        new = drawn.crop((0, 0, *size))  # less what filled it up to a multiple
    return new if place.mask is None else paste(place.whole, new, place.mask)


def edit_of(request: Txt2Img) -> dict[str, Any]:
    """Return what a record tells of the picture that was begun with: its hash and the settings."""
    if not isinstance(request, Img2Img):
        return {}
    edit: dict[str, Any] = {
        "source": pixel_hash(request.image),
        "strength": request.strength,
        "fit": request.fit,
        "width": request.width,
        "height": request.height,
        "resize": request.resize,
    }
    if request.depth is not None:
        edit["depth"] = pixel_hash(depth_of(request.depth))
    if isinstance(request, Inpaint):
        edit |= {
            "mask": None if request.mask is None else pixel_hash(request.mask),
            "mask_blur": request.mask_blur,
            "keep_outside": request.keep_outside,
            "margin": request.margin,
        }
    if isinstance(request, Outpaint):
        sides = ("left", "top", "right", "bottom", "mask_blur")
        edit |= {name: getattr(request, name) for name in sides}
    return edit
