"""Classifier-free guidance: two denoisers joined into one."""

from collections.abc import Sequence

from torch import Tensor

from sd_sampler.protocols import Denoiser


def combine(uncond: Tensor, cond: Tensor, scale: float) -> Tensor:
    """Return uncond + scale (cond - uncond): scale 1 is cond alone, 0 uncond alone.

    Ho and Salimans, "Classifier-Free Diffusion Guidance", arXiv 2207.12598, eq. 6, with scale =
    1 + w. x0 is linear in eps and in v, so it makes no difference which of the three is combined.
    """
    return uncond + scale * (cond - uncond)


def compose(
    uncond: Tensor, conds: Sequence[Tensor], weights: Sequence[float], scale: float
) -> Tensor:
    """Return uncond + scale sum(weight (cond - uncond)): several prompts of one picture.

    Liu et al., "Compositional Visual Generation with Composable Diffusion Models",
    arXiv 2206.01714, eq. 11. One cond that weighs 1 is `combine`.
    """
    guided = uncond
    for cond, weight in zip(conds, weights, strict=True):
        guided = guided + scale * weight * (cond - uncond)
    return guided


def classifier_free(cond: Denoiser, uncond: Denoiser, scale: float) -> Denoiser:
    """Guide cond away from uncond by scale; at scale 1 uncond is never asked."""
    if scale == 1:
        return cond

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        return combine(uncond(x, sigma), cond(x, sigma), scale)

    return guided
