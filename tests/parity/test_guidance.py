"""Guidance against diffusers' functions for it, on the same predictions.

Perturbed-attention guidance also with the network that it asks, of the same random weights, to
1e-5, and over whole runs, to 2e-5 of the latents' range.
"""

from typing import Any

import diffusers
import pytest
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from diffusers.pipelines.pag.pag_utils import PAGMixin
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from sd_sampler import (
    EPS,
    Guidance,
    GuidanceOptions,
    NoiseSchedule,
    NoiseSource,
    PlanOptions,
    V,
    combine,
    plan,
)
from sd_unet import AddedConditions, UNet, UNetConfig, perturbed_attention
from tests.parity import peers
from tests.unet.families import POOLED_DIM, TINY

SCHEDULE = NoiseSchedule.scaled_linear()
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


class Peer(PAGMixin):
    """Do what a pipeline of diffusers does about perturbed attention, and no more."""

    def __init__(
        self, unet: Any = None, *, layers: list[str], scale: float = 3.0, adaptive: float = 0.0
    ) -> None:
        self.unet = unet
        self._pag_scale, self._pag_adaptive_scale = scale, adaptive
        self.set_pag_applied_layers(layers)


def networks(name: str) -> tuple[UNet, diffusers.UNet2DConditionModel]:
    torch.manual_seed(0)
    ours = UNet(TINY[name]).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
            parameter.normal_(std=fan_in**-0.5)
    theirs = diffusers.UNet2DConditionModel.from_config(ours.config.to_diffusers()).eval()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def asked(config: UNetConfig, *, free: bool) -> tuple[Any, ...]:
    """Return latents, timesteps, states and what is added, [uncond, uncond,] cond x 2, cond x 2."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.tensor([0, 1, 2, 3, 2, 3] if free else [2, 3, 2, 3])
    latents = torch.randn(2, config.in_channels, 16, 16, generator=generator)[rows % 2]
    states = torch.randn(4, 7, config.cross_attention_dim, generator=generator)[rows]
    added = None
    if config.projection_input_dim is not None:
        sizes = torch.full((len(rows), config.num_sizes(POOLED_DIM)), 64.0)
        pooled = torch.randn(4, POOLED_DIM, generator=generator)[rows]
        added = AddedConditions(pooled, sizes)
    return latents, torch.full((len(rows),), 481), states, added


@torch.no_grad()
@pytest.mark.parametrize("free", [True, False], ids=["classifier-free", "alone"])
@pytest.mark.parametrize("layers", [["mid"], ["down", "up"], ["down_blocks.1", "up_blocks.1"]])
@pytest.mark.parametrize("name", ["sd15", "sd21", "sdxl"])
def test_a_perturbed_unet_is_that_of_the_attention_processors(
    name: str, layers: list[str], free: bool
) -> None:
    ours, theirs = networks(name)
    latents, timesteps, states, added = asked(ours.config, free=free)
    with perturbed_attention(ours, layers, 2):
        out = ours(latents, timesteps, states, added)
    Peer(theirs, layers=layers)._set_pag_attn_processor(layers, free)
    named = None
    if added is not None:
        named = {"text_embeds": added.pooled, "time_ids": added.sizes}
    peers_out = theirs(latents, timesteps, states, added_cond_kwargs=named).sample
    assert (out[-2:] - out[-4:-2]).abs().max() > 5e-4, "nothing was perturbed"
    torch.testing.assert_close(out, peers_out, rtol=0, atol=1e-5)


@pytest.mark.parametrize("timestep", [999, 500, 20])
@pytest.mark.parametrize("adaptive", [0.0, 0.002, 0.01])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_perturbed_attention_guidance_is_that_of_the_pipelines(
    scale: float, rescale: float, adaptive: float, timestep: int
) -> None:
    free = scale > 1
    peer = Peer(layers=["mid"], scale=3.0, adaptive=adaptive)
    outputs = [some(1), some(2), some(3)] if free else [some(2), some(3)]
    theirs, cond = peer._apply_perturbed_attention_guidance(
        torch.cat(outputs), free, scale, timestep, True
    )
    if free and rescale:  # which theirs leaves out without classifier-free guidance
        theirs = rescale_noise_cfg(theirs, cond, rescale)
    options = GuidanceOptions(
        scale=scale,
        rescale=rescale if free else 0.0,
        pag_scale=3.0,
        pag_adaptive_scale=adaptive,
    )
    guidance = Guidance(options, V, SIGMAS, timesteps=SCHEDULE)
    assert guidance.active(torch.ones(1)) == free
    sigma = SCHEDULE.sigma_of(torch.full((2,), timestep))
    c_skip, c_out, _ = (value[:, None, None, None] for value in V.scalings(sigma))
    x0s = [c_skip * some(0) + c_out * output for output in outputs]
    uncond = x0s.pop(0) if free else None
    ours = guidance(some(0), sigma, uncond, *x0s)
    torch.testing.assert_close(ours, c_skip * some(0) + c_out * theirs)


@torch.no_grad()
@pytest.mark.parametrize(
    ("scale", "adaptive", "layers"), [(5.0, 0.0, ["mid"]), (1.0, 0.005, ["mid", "up"])]
)
def test_a_run_guided_so_gives_the_pipelines_latents(
    scale: float, adaptive: float, layers: list[str]
) -> None:
    torch.manual_seed(0)
    theirs = peers.unet(linear=False)
    ours = UNet(UNetConfig.from_diffusers(dict(theirs.config))).eval()
    ours.load_state_dict(theirs.state_dict())
    states = torch.randn(2, 7, peers.WIDTH)
    pipeline = diffusers.StableDiffusionPAGPipeline(
        vae=peers.vae(0.18215),
        text_encoder=None,
        tokenizer=None,
        unet=theirs,
        scheduler=peers.scheduler("epsilon"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        pag_applied_layers=layers,
    )
    pipeline.set_progress_bar_config(disable=True)
    wanted = pipeline(
        prompt_embeds=states[1:].repeat(2, 1, 1),
        negative_prompt_embeds=states[:1].repeat(2, 1, 1),
        num_inference_steps=4,
        guidance_scale=scale,
        pag_scale=3.0,
        pag_adaptive_scale=adaptive,
        generator=[torch.Generator().manual_seed(seed) for seed in (7, 8)],
        output_type="latent",
    ).images

    made = plan("euler", "leading", SCHEDULE, 4, PlanOptions(steps_offset=1))
    options = GuidanceOptions(
        scale=scale, pag_scale=3.0, pag_adaptive_scale=adaptive, pag_layers=tuple(layers)
    )
    guidance = Guidance(options, EPS, made.sigmas, timesteps=made)
    perturbing: list[bool] = []

    def network(x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        perturbs = perturbing[-1]
        told = ([states[0]] if scale > 1 else []) + [states[1]] * (1 + perturbs)
        with perturbed_attention(ours, options.pag_layers, 2 * perturbs):
            return ours(x, timesteps, torch.stack(told).repeat_interleave(2, 0))

    denoise = made.denoiser(network, EPS)

    def guided(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        perturbing.append(guidance.pag_scale(sigma) > 0)
        rows = (scale > 1) + 1 + perturbing[-1]
        x0s = list(denoise(torch.cat([x] * rows), torch.cat([sigma] * rows)).chunk(rows))
        uncond = x0s.pop(0) if scale > 1 else None
        return guidance(x, sigma, uncond, *x0s)

    latents = made.run(guided, NoiseSource([7, 8], (4, 8, 8)))
    assert perturbing == ([True] * 4 if not adaptive else [True, True, False, False])
    assert float((latents - wanted).abs().max()) < 2e-5 * float(wanted.abs().max())
