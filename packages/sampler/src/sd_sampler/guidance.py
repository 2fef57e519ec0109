"""Guidance: classifier-free, by a picture, by perturbed attention; a sampler knows of none."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sd_sampler.denoiser import Timesteps
from sd_sampler.errors import SamplerError
from sd_sampler.prediction import Prediction
from sd_sampler.protocols import Denoiser, level_of, like

_FIRST_TIMESTEP = 1000  # where guidance that wanes is whole, whatever the schedule's length


def combine(uncond: Tensor, cond: Tensor, scale: float) -> Tensor:
    """Return uncond + scale (cond - uncond): scale 1 is cond alone, 0 uncond alone.

    Ho and Salimans, "Classifier-Free Diffusion Guidance", arXiv 2207.12598, eq. 6, with scale =
    1 + w. x0 is linear in eps and in v, so it makes no difference which of the three is combined.
    """
    return uncond + scale * (cond - uncond)


def compose(uncond: Tensor, conds: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return uncond + sum(weight (cond - uncond)): several prompts of one picture as one cond.

    Liu et al., "Compositional Visual Generation with Composable Diffusion Models",
    arXiv 2206.01714, eq. 11. One cond that weighs 1 comes back as it is.
    """
    if len(conds) == 1 and weights[0] == 1:
        return conds[0]
    composed = uncond
    for cond, weight in zip(conds, weights, strict=True):
        composed = composed + weight * (cond - uncond)
    return composed


@dataclass(frozen=True, kw_only=True, slots=True)
class GuidanceOptions:
    """Say how a prediction is guided; the defaults are plain classifier-free guidance.

    - `scale`, 1 or more: 1 is none.
    - `rescale` in [0, 1]: how much of the guided prediction's deviation is set back to the
      unguided one's, against overexposure (Lin et al., arXiv 2305.08891, section 3.4).
    - `interval`, shares (first, last) of the steps within which there is guidance at all
      (Kynkaanniemi et al., "Applying Guidance in a Limited Interval", arXiv 2404.07724).
    - `projected`: adaptive projected guidance (Sadat et al., arXiv 2410.02416), with `parallel` the
      share of the part along the prediction that is kept, `norm_limit` the longest update (0: any)
      and `momentum` the memory of the updates before.
    - `threshold`, a percentile from 1 to 100 or None: values of x0 beyond it are cut off, the rest
      brought to the unguided x0's percentile. It is dynamic thresholding (Saharia et al., "Imagen",
      arXiv 2205.11487, section 2.3) with a bound for latents, which have none of their own.
    - `pag_scale` from 0 (none) to 100: perturbed-attention guidance (Ahn et al., arXiv 2403.17377,
      section 4), away from a network that, in the self-attention of `pag_layers`, sees every place
      by itself. It needs no negative prompt and goes with or without `scale`; 3 is usual. It wanes
      by `pag_adaptive_scale`, from 0 to 1, a timestep below 1000, as diffusers has it.
    - `image_scale` from 0 to 100, or None for a network that is shown no picture to edit: guidance
      by that picture beside that by the text (Brooks et al., "InstructPix2Pix", arXiv 2211.09800,
      eq. 3). 1 is none and 1.5 usual. It is a part of classifier-free guidance, and none where that
      is none.

    Raises `SamplerError` for values out of range.
    """

    scale: float = 1.0
    rescale: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)
    projected: bool = False
    parallel: float = 0.0
    norm_limit: float = 15.0
    momentum: float = -0.5
    threshold: float | None = None
    pag_scale: float = 0.0
    pag_adaptive_scale: float = 0.0
    pag_layers: tuple[str, ...] = ("mid",)
    image_scale: float | None = None

    def __post_init__(self) -> None:
        for listed in ("interval", "pag_layers"):  # which come as lists out of JSON
            object.__setattr__(self, listed, tuple(getattr(self, listed)))
        first, last = self.interval
        for name, value, low, high in (
            ("guidance rescale", self.rescale, 0.0, 1.0),
            ("the guidance interval's beginning", first, 0.0, last),
            ("the guidance interval's end", last, first, 1.0),
            ("projected guidance's parallel part", self.parallel, 0.0, 1.0),
            ("projected guidance's norm limit", self.norm_limit, 0.0, float("inf")),
            ("projected guidance's momentum", self.momentum, -1.0, 1.0),
            ("the threshold's percentile", self.threshold or 100.0, 1.0, 100.0),
            ("perturbed-attention guidance's scale", self.pag_scale, 0.0, 100.0),
            ("perturbed-attention guidance's adaptive scale", self.pag_adaptive_scale, 0.0, 1.0),
            ("image guidance", 1.0 if self.image_scale is None else self.image_scale, 0.0, 100.0),
        ):
            if not low <= value <= high:
                raise SamplerError(f"{name} is {value}; it must be from {low:g} to {high:g}")
        if self.pag_scale > 0 and not self.pag_layers:
            raise SamplerError("perturbed-attention guidance has no layer; name one, such as mid")


class Guidance:
    """Guide the predictions of one run: with momentum it remembers what it did before.

    `sigmas` (N + 1,) are the run's levels, in which the interval's shares are counted. `timesteps`,
    such as the run's `Plan`, are for `pag_adaptive_scale`; raises `SamplerError` where that wants
    them and they are not given.
    """

    def __init__(
        self,
        options: GuidanceOptions,
        prediction: Prediction,
        sigmas: Tensor,
        timesteps: Timesteps | None = None,
    ) -> None:
        if options.pag_adaptive_scale > 0 and timesteps is None:
            raise SamplerError("pag_adaptive_scale goes by the timestep: give timesteps=plan")
        self.options = options
        self._prediction = prediction
        self._timesteps = timesteps
        self._average: Tensor | None = None
        levels = sigmas.tolist()
        num_steps = len(levels) - 1
        first, last = (round(share * num_steps) for share in options.interval)
        # Between the levels: what is asked within a step belongs to it.
        self._highest = float("inf") if first == 0 else _between(levels[first - 1], levels[first])
        self._lowest = 0.0 if last >= num_steps else _between(levels[last - 1], levels[last])
        self._empty = first == last

    def active(self, sigma: Tensor) -> bool:
        """Tell whether there is classifier-free guidance at a level (B,), the same for all."""
        return self.options.scale != 1 and self._within(sigma)

    def pag_scale(self, sigma: Tensor) -> float:
        """Return the scale of perturbed-attention guidance at a level (B,), the same for all.

        Where it is 0, the perturbed network need not be asked.
        """
        scale, waning = self.options.pag_scale, self.options.pag_adaptive_scale
        if not scale or not self._within(sigma):
            return 0.0
        if self._timesteps is None or not waning:
            return scale
        level = torch.tensor([level_of(sigma)], dtype=sigma.dtype, device="cpu")
        timestep = float(self._timesteps.timestep_of(level))
        return max(scale - waning * (_FIRST_TIMESTEP - timestep), 0.0)

    def image_scale(self, sigma: Tensor) -> float:
        """Return the scale of guidance by a picture at a level (B,), the same for all.

        Where it is 1, the network need not be asked without that picture.
        """
        scale = self.options.image_scale
        return 1.0 if scale is None or not self.active(sigma) else scale

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        uncond: Tensor | None,
        cond: Tensor,
        perturbed: Tensor | None = None,
        blind: Tensor | None = None,
    ) -> Tensor:
        """Return the guided x0 of x (B, ...) at sigma (B,), from what is predicted.

        `uncond` None is without classifier-free guidance, `perturbed` None without the other.
        `blind` is what is predicted from neither text nor picture, where `uncond` has seen the
        picture; None is without guidance by it.
        """
        options = self.options
        if uncond is None:
            guided = cond
        elif options.projected:
            guided = cond + (options.scale - 1) * self._projected(uncond, cond)
        else:
            guided = combine(uncond, cond, options.scale)
        if uncond is not None and blind is not None:
            # InstructPix2Pix, eq. 3, is combine(blind, uncond, s_I) + s_T (cond - uncond): this is
            # what it has more than combine(uncond, cond, s_T).
            guided = guided + (self.image_scale(sigma) - 1) * (uncond - blind)
        if perturbed is not None:
            guided = guided + self.pag_scale(sigma) * (cond - perturbed)
        if options.rescale:
            guided = self._rescaled(x, sigma, guided, cond)
        if options.threshold is not None:
            guided = _thresholded(guided, cond, options.threshold)
        return guided

    def _within(self, sigma: Tensor) -> bool:
        return not self._empty and self._lowest < level_of(sigma) < self._highest

    def _projected(self, uncond: Tensor, cond: Tensor) -> Tensor:
        update = cond - uncond
        if self.options.momentum and self._average is not None:
            update = update + self.options.momentum * self._average
        self._average = update
        dims = tuple(range(1, update.ndim))
        if self.options.norm_limit:
            update = update * (self.options.norm_limit / _length(update, dims)).clamp(max=1)
        along = cond / _length(cond, dims)
        parallel = (update * along).sum(dims, keepdim=True) * along
        across: Tensor = update - (1 - self.options.parallel) * parallel
        return across

    def _rescaled(self, x: Tensor, sigma: Tensor, guided: Tensor, cond: Tensor) -> Tensor:
        """Set the deviation back, in what the network predicts: the paper's models predict v."""
        c_skip, c_out, _ = (like(value, x) for value in self._prediction.scalings(sigma))
        dims = tuple(range(1, x.ndim))
        wanted, outputs = ((x0 - c_skip * x) / c_out for x0 in (cond, guided))
        ratio = wanted.std(dims, keepdim=True) / outputs.std(dims, keepdim=True)
        share = self.options.rescale
        return c_skip * x + c_out * outputs * (share * ratio + 1 - share)


def classifier_free(cond: Denoiser, uncond: Denoiser, scale: float) -> Denoiser:
    """Guide cond away from uncond by scale; at scale 1 uncond is never asked."""
    if scale == 1:
        return cond

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        return combine(uncond(x, sigma), cond(x, sigma), scale)

    return guided


def _thresholded(guided: Tensor, cond: Tensor, percentile: float) -> Tensor:
    share = percentile / 100
    bound, reached = (
        torch.quantile(x0.flatten(1).abs().float(), share, dim=1) for x0 in (cond, guided)
    )
    limit = torch.maximum(bound, reached)
    cut = torch.minimum(torch.maximum(guided, -like(limit, guided)), like(limit, guided))
    return cut * like(bound / limit, guided)


def _length(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(values, dim=dims, keepdim=True)
    return length.clamp(min=1e-12)


def _between(high: float, low: float) -> float:
    return math.sqrt(high * low) if low > 0 else high / 2
