"""What a user asks for, checked before a model is loaded."""

import re
from dataclasses import dataclass, field
from typing import Literal

from PIL import Image

from sd_pipeline.adapter_use import AdapterUse
from sd_pipeline.depth import depth_of
from sd_pipeline.errors import PipelineError
from sd_pipeline.images import FITS, Fit, extended, mask_of, to_mask
from sd_sampler import GuidanceOptions, parse_sampler, parse_schedule
from sd_unet import MAX_MERGED

_MAX_SIDE = 8192
_MAX_SEED = 2**63 - 1
_MAX_BLUR = 64
_MAX_MARGIN = 1024
_MAX_REUSE = 10  # steps; beyond it pictures fall apart
_MAX_CLIP_SKIP = 63  # more than any text encoder has layers

_HALVES = re.compile("[\ud800-\udfff]")  # of characters: UTF-8 has none, so no file could hold them

Resize = Literal["pixel", "latent"]
RESIZES: tuple[Resize, ...] = ("pixel", "latent")
Seamless = Literal["none", "x", "y", "both"]
SEAMLESS: tuple[Seamless, ...] = ("none", "x", "y", "both")


def check_unicode(prompt: str) -> None:
    """Raise `PipelineError` for half a character, which is what a wrong terminal makes of one."""
    half = _HALVES.search(prompt)
    if half is not None:
        raise PipelineError(
            f"the prompt has U+{ord(half[0]):04X}, half a character, at {half.start()}; it must be "
            "Unicode, which a terminal sends as UTF-8"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Blend:
    """Draw a picture on the way to another: to another prompt, another seed, or both.

    `share` from 0 to 1 is how far. A `prompt` or `seed` None is the picture's own. Raises
    `PipelineError` for a value outside its range.
    """

    share: float
    prompt: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise PipelineError(f"the share of a blend is {self.share}; it must be from 0 to 1")
        if self.prompt is not None and not self.prompt.strip():
            raise PipelineError("the prompt to blend with is empty; say what to draw")
        check_unicode(self.prompt or "")
        if self.seed is not None and not 0 <= self.seed <= _MAX_SEED:
            raise PipelineError(f"seed is {self.seed}; it must be from 0 to 2**63 - 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Txt2Img:
    """Everything that makes pictures from a prompt.

    Sides are in pixels; None is the model's own size. ``sampler`` and ``schedule`` None are the
    model's own. ``guidance_scale`` 1 is no guidance; ``guidance`` is how it is done, its own
    ``scale`` is not heeded. Picture i of ``count`` has seed ``seed + i``, and so has what ``blend``
    names; ``batch_size`` of them are made at a time, which changes no noise. A picture that is
    ``seamless`` goes on at its other side, along x, y or both. ``clip_skip`` last layers of the
    text encoder are left out, which the web UI's "Clip skip" counts from 1. ``adapters`` change the
    model for these pictures alone. Of every ``reuse_features`` steps one computes the whole UNet,
    the others its finest level alone: faster, and another picture; 1 is exact. ``merge_tokens`` is
    the share of the finest level's tokens that are merged for self-attention: likewise; 0 is exact.

    A model that is told classes alone takes the prompt, and the negative one, for a class's name or
    number, as it does their parts that are joined by AND or change by step. ``class_name`` is for a
    model that is told a class beside the text; None is none.

    Raises ``PipelineError`` for a value outside its range.
    """

    prompt: str
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    num_steps: int | None = None
    sampler: str | None = None
    schedule: str | None = None
    guidance_scale: float | None = None
    guidance: GuidanceOptions = field(default_factory=GuidanceOptions)
    seed: int = 0
    count: int = 1
    batch_size: int = 1
    blend: Blend | None = None
    seamless: Seamless = "none"
    clip_skip: int = 0
    class_name: str | None = None
    adapters: tuple[AdapterUse, ...] = ()
    reuse_features: int = 1
    merge_tokens: float = 0.0

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise PipelineError("the prompt is empty; say what to draw")
        for text in (self.prompt, self.negative_prompt, self.class_name or ""):
            check_unicode(text)
        _check_sides(width=self.width, height=self.height)
        _check_counts(steps=self.num_steps, count=self.count, batch=self.batch_size)
        if not 0 <= self.clip_skip <= _MAX_CLIP_SKIP:
            raise PipelineError(
                f"clip-skip is {self.clip_skip}; it must be from 0 (none) to {_MAX_CLIP_SKIP}"
            )
        if not 1 <= self.reuse_features <= _MAX_REUSE:
            raise PipelineError(
                f"reuse-features is {self.reuse_features}; it must be from 1 (none) to {_MAX_REUSE}"
            )
        _check_merge(self.merge_tokens, self.guidance)
        scale = self.guidance_scale
        if scale is not None and not 1 <= scale <= 100:
            raise PipelineError(f"guidance is {scale}; it must be from 1 (none) to 100")
        if not 0 <= self.seed <= _MAX_SEED - self.count + 1:
            raise PipelineError(f"seed is {self.seed}; it must be from 0 to 2**63 - 1")
        if self.sampler is not None:
            parse_sampler(self.sampler)  # raises for a name that is not there
        if self.schedule is not None:
            parse_schedule(self.schedule)
        if self.seamless not in SEAMLESS:
            raise PipelineError(f"seamless is {self.seamless!r}; it must be {', '.join(SEAMLESS)}")


def _check_merge(share: float, guidance: GuidanceOptions) -> None:
    if not 0 <= share <= MAX_MERGED:
        raise PipelineError(f"merge-tokens is {share}; it must be from 0 (none) to {MAX_MERGED}")
    if share and guidance.pag_scale:
        raise PipelineError(
            "merge-tokens does not go with perturbed-attention guidance, which sees every token by "
            "itself; leave one of them out"
        )


def _check_counts(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise PipelineError(f"{name} is {number}; it must be at least 1")


def _check_sides(**sides: int | None) -> None:
    for name, side in sides.items():
        if side is not None and (side < 8 or side > _MAX_SIDE or side % 8):
            near = min(max(round(side / 8) * 8, 8), _MAX_SIDE)
            raise PipelineError(
                f"{name} is {side}; it must be a multiple of 8 from 8 to {_MAX_SIDE}, try {near}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Img2Img(Txt2Img):
    """Everything that makes pictures from a prompt and a picture.

    ``strength`` is the share of the steps that are taken: 1 keeps nothing of the picture. None is
    0.75, and the only one for a model that edits by instructions (pix2pix), which begins with noise
    and looks at the picture throughout. It is brought to ``width`` and ``height`` as ``fit`` says,
    or where these are None drawn at its own size, less what is beyond a multiple of 8. ``resize``
    says what is brought to that size: its pixels, or its latents. ``depth``, for a model that draws
    by it and for no other, is a map of all that the picture shows, larger where it is nearer, of
    any size and of 8, 16 or 32 bits. Raises ``PipelineError`` as ``Txt2Img``, and for a ``depth``
    that is in colour.
    """

    image: Image.Image
    strength: float | None = None
    fit: Fit = "crop"
    resize: Resize = "pixel"
    depth: Image.Image | None = None

    def __post_init__(self) -> None:
        # super() needs the class that slots=True has replaced.
        Txt2Img.__post_init__(self)
        if self.strength is not None and not 0 < self.strength <= 1:
            raise PipelineError(f"strength is {self.strength}; it must be above 0 and at most 1")
        if self.fit not in FITS:
            raise PipelineError(f"fit is {self.fit!r}; it must be {', '.join(FITS)}")
        if self.resize not in RESIZES:
            raise PipelineError(f"resize is {self.resize!r}; it must be {', '.join(RESIZES)}")
        if min(self.image.size) < 8:
            raise PipelineError(f"the picture is {self.image.size}; its sides must be at least 8")
        if self.depth is not None:
            depth_of(self.depth)  # raises for what is no measurement

    @property
    def size(self) -> tuple[int, int]:
        """The width and height that are drawn."""
        width, height = (min(side // 8 * 8, _MAX_SIDE) for side in self.image.size)
        return self.width or width, self.height or height


@dataclass(frozen=True, kw_only=True, slots=True)
class Inpaint(Img2Img):
    """Everything that draws a part of a picture anew.

    ``mask`` is white where; of a picture with transparency, where it is transparent. None takes the
    transparency of ``image``. Its edge fades outwards over ``mask_blur`` pixels in the finished
    picture; what lies beyond is the original's, to the bit, unless ``keep_outside`` is False.

    With a ``margin`` only what surrounds the mask is drawn, that many pixels on each side, enlarged
    to ``width`` and ``height`` or the model's own size, and set back into the picture: so small
    things get all of the model's detail.

    Raises ``PipelineError`` as ``Img2Img``, and for a mask of another size or without white.
    """

    strength: float = 1.0
    mask: Image.Image | None = None
    mask_blur: float = 4.0
    keep_outside: bool = True
    margin: int | None = None

    def __post_init__(self) -> None:
        Img2Img.__post_init__(self)
        if not 0 <= self.mask_blur <= _MAX_BLUR:
            raise PipelineError(f"mask blur is {self.mask_blur}; it must be from 0 to {_MAX_BLUR}")
        if self.margin is not None and not 0 <= self.margin <= _MAX_MARGIN:
            raise PipelineError(f"margin is {self.margin}; it must be from 0 to {_MAX_MARGIN}")
        if self.resize != "pixel":
            raise PipelineError("a mask is of pixels; latents cannot be resized under it")
        if self.mask is None and not self.image.has_transparency_data:
            raise PipelineError("there is no mask, and nothing in the picture is transparent")
        if self.mask is not None and self.mask.size != self.image.size:
            raise PipelineError(
                f"the mask is {self.mask.size}, the picture {self.image.size}; make them equal"
            )
        if not to_mask(mask_of(self.mask or self.image)).any():
            raise PipelineError("the mask has no white, so there is nothing to draw anew")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outpaint(Img2Img):
    """Everything that draws what lies beyond the sides of a picture.

    ``left``, ``top``, ``right`` and ``bottom`` are the pixels to draw there; the new fades into the
    picture over ``mask_blur`` pixels. Raises ``PipelineError`` as ``Img2Img``, and for no pixels.
    """

    strength: float = 1.0
    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0
    mask_blur: float = 4.0

    def __post_init__(self) -> None:
        Img2Img.__post_init__(self)
        if self.width is not None or self.height is not None:
            raise PipelineError("outpainting keeps the picture's size; leave width and height")
        self.as_inpaint()  # raises for sides out of range

    def as_inpaint(self) -> Inpaint:
        """Return the same as the inpainting of a wider canvas, which repeats the picture's edge."""
        canvas, mask = extended(
            self.image, left=self.left, top=self.top, right=self.right, bottom=self.bottom
        )
        shared = (name for name in Img2Img.__dataclass_fields__ if name != "image")
        values = {name: getattr(self, name) for name in shared}
        return Inpaint(**values, image=canvas, mask=mask, mask_blur=self.mask_blur)
