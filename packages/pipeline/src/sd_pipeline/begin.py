"""How a run begins: from noise alone, or from a picture that is there."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sd_pipeline.autoencoding import Tiling, encode_pixels
from sd_pipeline.depth import depth_channel
from sd_pipeline.errors import PipelineError
from sd_pipeline.parts import Parts
from sd_sampler import Denoiser, NoiseSource, Plan

_HALF = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Hold the picture that a run begins with: pixels (1, 3, H, W) in [-1, 1].

    `strength` in (0, 1] is the share of the steps that are taken. `mask` (1, 1, H, W) is 1 where
    the picture is to be drawn anew, None is everywhere. `latent_size` (h, w), where given, is what
    its latents are brought to. `depth` (1, 1, any, any) is how near what it shows is, in any unit.
    `tiling` says how it is encoded.
    """

    pixels: Tensor
    strength: float
    mask: Tensor | None = None
    latent_size: tuple[int, int] | None = None
    depth: Tensor | None = None
    tiling: Tiling = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """Hold where a run starts: its plan, x (B, C, h, w), and the UNet's further channels.

    `extra` (B, any, h, w) are the latter, None where it has none. `kept` are latents and a mask:
    outside the mask the run is to arrive at the latents.
    """

    plan: Plan
    x: Tensor
    extra: Tensor | None = None
    kept: tuple[Tensor, Tensor] | None = None

    def with_extra(self, x: Tensor, group: slice, num_blind: int) -> Tensor:
        """Return x of some pictures (N * B, C, h, w), N times each, with the further channels.

        `group` says which pictures; the first `num_blind` times they are shown zeros.
        """
        if self.extra is None:
            return x
        extra = self.extra[group]
        shown = [torch.zeros_like(extra)] * num_blind
        shown += [extra] * (len(x) // len(extra) - num_blind)
        return torch.cat([x, torch.cat(shown)], dim=1)

    def bound(self, denoise: Denoiser) -> Denoiser:
        """Return a denoiser that knows what the picture is outside the mask.

        Then x is the picture and its own noise there at every level, whatever the sampler.
        """
        if self.kept is None:
            return denoise
        latents, mask = self.kept

        def known(x: Tensor, sigma: Tensor) -> Tensor:
            return torch.where(mask > _HALF, denoise(x, sigma), latents)

        return known


def begin_anew(parts: Parts, plan: Plan, noise: NoiseSource, dtype: torch.dtype) -> Beginning:
    """Begin with noise: txt2img. An inpainting UNet is shown a mask over everything."""
    x = plan.initial(noise)
    if parts.task == "txt2img":
        return Beginning(plan=plan, x=x)
    assert parts.task == "inpaint", "others need a picture, and a request without is refused"
    factor = parts.vae.config.downsampling
    height, width = (side * factor for side in x.shape[-2:])
    grey = Source(pixels=torch.zeros(1, 3, height, width), strength=1.0)
    return Beginning(plan=plan, x=x, extra=_seen(parts, grey, noise, dtype))


def begin_from(
    parts: Parts, plan: Plan, noise: NoiseSource, source: Source, dtype: torch.dtype
) -> Beginning:
    """Begin with a picture: img2img and, with a mask, inpaint.

    Noise is drawn as diffusers draws it: for the posterior of the picture, for x, and for the
    posterior of the picture without what is masked, which an inpainting UNet wants to see. A UNet
    that edits by instructions begins with noise alone. Raises `PipelineError` where `strength`
    leaves no step.
    """
    if parts.task == "pix2pix":
        x = plan.initial(noise)
        return Beginning(plan=plan, x=x, extra=_shown(parts, source, x, dtype))
    number = min(int(plan.num_steps * source.strength), plan.num_steps)
    if number < 1:
        raise PipelineError(
            f"strength {source.strength} of {plan.num_steps} steps is none; "
            f"give at least {1 / plan.num_steps:.3f}, or more steps"
        )
    rest = plan.tail(plan.num_steps - number)
    sees_mask = parts.task == "inpaint"
    if sees_mask and number == plan.num_steps:
        x = plan.initial(noise)  # nothing of the picture is left to begin with
        return Beginning(plan=rest, x=x, extra=_seen(parts, source, noise, dtype))
    if source.latent_size is not None and source.latent_size != _latent_size(parts, source):
        latents = _resized(parts, source, noise)
    else:
        latents = _encode(parts, source.pixels, noise.initial(), source.tiling)
    x = rest.noised(latents, noise())
    if sees_mask:
        return Beginning(plan=rest, x=x, extra=_seen(parts, source, noise, dtype))
    if source.depth is not None:
        height, width = x.shape[-2:]
        channel = depth_channel(source.depth, (height, width)).to(x.device, dtype)
        return Beginning(plan=rest, x=x, extra=channel.expand(len(x), -1, -1, -1))
    if source.mask is None:
        return Beginning(plan=rest, x=x)
    mask = F.max_pool2d(source.mask, parts.vae.config.downsampling).to(latents)
    return Beginning(plan=rest, x=x, kept=(latents, mask))


def _seen(parts: Parts, source: Source, noise: NoiseSource, dtype: torch.dtype) -> Tensor:
    """Return an inpainting UNet's further channels (B, 1 + C, h, w): mask, and what it leaves."""
    pixels = source.pixels
    whole = pixels.new_ones((1, 1, *pixels.shape[-2:]))
    mask = (whole if source.mask is None else source.mask) > _HALF
    left = _encode(parts, pixels * ~mask, noise(), source.tiling)
    small = F.interpolate(mask.float(), size=left.shape[-2:]).to(left)
    return torch.cat([small.expand(len(left), -1, -1, -1), left], dim=1).to(dtype)


def _shown(parts: Parts, source: Source, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the further channels (B, C, h, w) of a UNet that edits: the latents' means, unscaled.

    Unscaled is how these UNets were trained (Brooks et al., arXiv 2211.09800, and diffusers' for
    SDXL), unlike all others.
    """
    means = encode_pixels(parts.vae, source.pixels, source.tiling).mean
    return means.to(x.device, dtype).expand_as(x)


def _latent_size(parts: Parts, source: Source) -> tuple[int, int]:
    height, width = (side // parts.vae.config.downsampling for side in source.pixels.shape[-2:])
    return height, width


def _resized(parts: Parts, source: Source, noise: NoiseSource) -> Tensor:
    """Return the latents' means, enlarged, as the web UI's "latent" upscaler has it."""
    drawn = noise.initial()  # of the larger size, so none of it can be the posterior's
    means = _encode(parts, source.pixels, drawn.new_zeros(()), source.tiling)
    large = F.interpolate(means.float(), source.latent_size, mode="bilinear", antialias=False)
    return large.to(drawn).expand_as(drawn)


def _encode(parts: Parts, pixels: Tensor, noise: Tensor, tiling: Tiling) -> Tensor:
    """Return samples of one picture's scaled latents (B, C, h, w), from noise of that shape."""
    posterior = encode_pixels(parts.vae, pixels, tiling)
    latents: Tensor = parts.vae.scale(posterior.mean + posterior.std * noise.to(posterior.mean))
    return latents.to(noise.dtype)
