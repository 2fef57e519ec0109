"""The whole way from prompt to pixels against diffusers' StableDiffusionPipeline, same folder."""

from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from sd_pipeline import Scheduler, Txt2Img, load_pipeline, save_model
from sd_sampler import SAMPLERS, DiffusionConfig, GuidanceOptions
from tests.tiny_model import tiny_parts

PROMPT, NEGATIVE = "two black dogs on a mat", "a cat"


def ours(folder: Path, sampler: str, schedule: str | None, **settings: object) -> np.ndarray:
    pipeline = load_pipeline(folder, device="cpu")
    request = Txt2Img(
        prompt=PROMPT, negative_prompt=NEGATIVE, sampler=sampler, schedule=schedule, **settings
    )
    return np.stack([np.asarray(p.image) for p in pipeline.txt2img(request)]).astype(int)


def theirs(folder: Path, sampler: str, *, seeds: list[int], steps: int) -> np.ndarray:
    peer = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    peer.set_progress_bar_config(disable=True)
    entry = SAMPLERS[sampler]
    scheduler = getattr(diffusers, entry.diffusers_class)
    config = {**peer.scheduler.config, "use_karras_sigmas": entry.schedule == "karras"}
    extra = dict(entry.diffusers_arguments)
    if sampler in ("ddim", "ddpm", "ddpm_large"):
        extra["clip_sample"] = False
    peer.scheduler = scheduler.from_config(config, **extra)
    images = peer(
        [PROMPT] * len(seeds),
        negative_prompt=[NEGATIVE] * len(seeds),
        num_inference_steps=steps,
        guidance_scale=4.0,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        output_type="np",
    ).images
    return (images * 255).round().astype(int)


@pytest.fixture(scope="module")
def eps_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "eps"
    scheduler = Scheduler(
        diffusion=DiffusionConfig(prediction="eps"), sampler="plms", schedule=None
    )
    save_model(folder, replace(tiny_parts(), scheduler=scheduler), dtype=torch.float32)
    return folder


@pytest.mark.parametrize("sampler", [n for n, entry in SAMPLERS.items() if entry.diffusers_class])
def test_each_sampler_draws_the_picture_that_diffusers_draws(
    tiny_model: Path, eps_model: Path, sampler: str
) -> None:
    # diffusers' PLMS combines what is predicted, ours eps: for eps it is the same.
    folder = eps_model if sampler == "plms" else tiny_model
    mine = ours(
        folder, sampler, None, seed=11, count=2, batch_size=2, num_steps=5, guidance_scale=4.0
    )
    peers = theirs(folder, sampler, seeds=[11, 12], steps=5)
    assert np.abs(mine - peers).max() <= 1  # one grey level: rounding
    assert (mine != peers).mean() < 0.01


@pytest.mark.parametrize(("scale", "adaptive"), [(4.0, 0.0), (1.0, 0.0), (4.0, 0.002)])
def test_perturbed_attention_guidance_draws_diffusers_picture(
    eps_model: Path, scale: float, adaptive: float
) -> None:
    peer = diffusers.StableDiffusionPAGPipeline.from_pretrained(
        eps_model, pag_applied_layers=["mid"]
    )
    peer.set_progress_bar_config(disable=True)
    peer.scheduler = diffusers.EulerDiscreteScheduler.from_config(peer.scheduler.config)
    images = peer(
        PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=5,
        guidance_scale=scale,
        pag_scale=3.0,
        pag_adaptive_scale=adaptive,
        generator=torch.Generator("cpu").manual_seed(11),
        output_type="np",
    ).images
    settings = {"seed": 11, "num_steps": 5, "guidance_scale": scale}
    guidance = GuidanceOptions(pag_scale=3.0, pag_adaptive_scale=adaptive)
    mine = ours(eps_model, "euler", None, **settings, guidance=guidance)
    assert np.abs(mine - (images * 255).round().astype(int)).max() <= 1
    assert np.abs(mine - ours(eps_model, "euler", None, **settings)).max() > 3
