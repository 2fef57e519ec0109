"""Guidance against diffusers' functions for it, on the same predictions."""

import pytest
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from sd_sampler import Guidance, GuidanceOptions, V, combine

SIGMAS = torch.tensor([8.0, 4.0, 0.0], dtype=torch.float64)


def some(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("rescale", [0.3, 0.7, 1.0])
def test_rescaled_guidance_is_that_of_the_pipelines(rescale: float) -> None:
    sigma, x, uncond, cond = torch.full((2,), 4.0, dtype=torch.float64), some(0), some(1), some(2)
    c_skip, c_out, _ = (value[:, None, None, None] for value in V.scalings(sigma))
    theirs = rescale_noise_cfg(combine(uncond, cond, 7.5), cond, rescale)
    guidance = Guidance(GuidanceOptions(scale=7.5, rescale=rescale), V, SIGMAS)
    ours = guidance(x, sigma, *(c_skip * x + c_out * f for f in (uncond, cond)))
    torch.testing.assert_close(ours, c_skip * x + c_out * theirs)


@pytest.mark.parametrize("parallel", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("norm_limit", [0.0, 2.0, 15.0])
@pytest.mark.parametrize("momentum", [0.0, -0.5, 0.5])
def test_projected_guidance_is_that_of_the_guider(
    parallel: float, norm_limit: float, momentum: float
) -> None:
    options = GuidanceOptions(
        scale=6.0, projected=True, parallel=parallel, norm_limit=norm_limit, momentum=momentum
    )
    guidance, buffer = Guidance(options, V, SIGMAS), MomentumBuffer(momentum)
    sigma = torch.full((2,), 4.0, dtype=torch.float64)
    for step in range(3):
        uncond, cond = some(2 * step), some(2 * step + 1)
        theirs = normalized_guidance(
            cond, uncond, 5.0, buffer, parallel, norm_limit, use_original_formulation=True
        )
        torch.testing.assert_close(guidance(some(9), sigma, uncond, cond), theirs)
