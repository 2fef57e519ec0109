"""Pictures from pictures against diffusers: img2img, and inpaint with a plain and an own UNet."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from sd_pipeline import Img2Img, Inpaint, load_pipeline
from sd_sampler import SAMPLERS

PROMPT, NEGATIVE = "two black dogs on a mat", "a cat"
SAMPLERS_TO_TRY = (
    "dpmpp_2m",
    "ddim",
    "euler",
    "euler_a",
    "heun",
    "dpm2_a",
    "unipc",
    "dpmpp_2m_sde",
)


@pytest.fixture(scope="module")
def image() -> Image.Image:
    generator = np.random.default_rng(0)
    small = Image.fromarray(generator.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return small.resize((80, 64), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def mask() -> Image.Image:
    mask = np.zeros((64, 80), dtype=np.uint8)
    mask[16:48, 24:64] = 255  # whole latents, which both sides see alike
    return Image.fromarray(mask)


def scheduler_of(peer: diffusers.DiffusionPipeline, sampler: str) -> object:
    entry = SAMPLERS[sampler]
    config = {**peer.scheduler.config, "use_karras_sigmas": entry.schedule == "karras"}
    extra = dict(entry.diffusers_arguments)
    if sampler == "ddim":
        extra["clip_sample"] = False
    return getattr(diffusers, entry.diffusers_class).from_config(config, **extra)


def theirs(peer: diffusers.DiffusionPipeline, sampler: str, seeds: list[int], **inputs: object):
    peer.set_progress_bar_config(disable=True)
    peer.scheduler = scheduler_of(peer, sampler)
    images = peer(
        [PROMPT] * len(seeds),
        negative_prompt=[NEGATIVE] * len(seeds),
        guidance_scale=4.0,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        output_type="np",
        **inputs,
    ).images
    return (images * 255).round().astype(int)


def stacked(pictures) -> np.ndarray:
    return np.stack([np.asarray(picture.image) for picture in pictures]).astype(int)


def assert_same(mine: np.ndarray, peers: np.ndarray) -> None:
    assert mine.shape == peers.shape
    assert np.abs(mine - peers).max() <= 1  # one grey level: rounding
    assert (mine != peers).mean() < 0.01


def one_by_one(
    peer: diffusers.DiffusionPipeline, sampler: str, seeds: list[int], **inputs: object
) -> np.ndarray:
    """Draw each seed alone: in a batch diffusers' inpaint gives all the first one's latents."""
    return np.concatenate([theirs(peer, sampler, [seed], **inputs) for seed in seeds])


COMMON = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "guidance_scale": 4.0}


@pytest.mark.parametrize(("strength", "steps"), [(0.3, 10), (0.8, 5), (1.0, 4)])
@pytest.mark.parametrize("sampler", SAMPLERS_TO_TRY)
def test_img2img_draws_diffusers_picture(
    tiny_model: Path, image: Image.Image, sampler: str, strength: float, steps: int
) -> None:
    if sampler not in ("dpmpp_2m", "ddim") and strength != 0.8:
        return
    request = Img2Img(
        **COMMON, image=image, strength=strength, num_steps=steps, seed=3, count=2, batch_size=2,
        sampler=sampler,
    )  # fmt: skip
    mine = stacked(load_pipeline(tiny_model, device="cpu").img2img(request))
    peer = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(tiny_model)
    inputs = {"image": image, "strength": strength, "num_inference_steps": steps}
    assert_same(mine, theirs(peer, sampler, [3, 4], **inputs))


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "ddim", "unipc"])
def test_inpaint_with_a_plain_unet_draws_diffusers_picture(
    tiny_model: Path, image: Image.Image, mask: Image.Image, sampler: str
) -> None:
    request = Inpaint(
        **COMMON, image=image, mask=mask, strength=0.8, num_steps=5, seed=3, count=2, batch_size=2,
        sampler=sampler, keep_outside=False,
    )  # fmt: skip
    mine = stacked(load_pipeline(tiny_model, device="cpu").inpaint(request))
    peer = diffusers.StableDiffusionInpaintPipeline.from_pretrained(tiny_model)
    inputs = {"image": image, "mask_image": mask, "strength": 0.8, "num_inference_steps": 5}
    assert_same(mine, one_by_one(peer, sampler, [3, 4], height=64, width=80, **inputs))


@pytest.mark.parametrize("strength", [0.8, 1.0])
def test_inpaint_with_its_own_unet_draws_diffusers_picture(
    tmp_path: Path, tiny_model: Path, image: Image.Image, mask: Image.Image, strength: float
) -> None:
    folder = tmp_path / "inpaint"
    plain = diffusers.StableDiffusionPipeline.from_pretrained(tiny_model)
    torch.manual_seed(1)
    config = {**plain.unet.config, "in_channels": 9}
    unet = diffusers.UNet2DConditionModel.from_config(config)
    parts = {**plain.components, "unet": unet}
    peer = diffusers.StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
    peer.save_pretrained(folder)
    request = Inpaint(
        **COMMON, image=image, mask=mask, strength=strength, num_steps=5, seed=3, count=2,
        batch_size=2, keep_outside=False,
    )  # fmt: skip
    mine = stacked(load_pipeline(folder, device="cpu").inpaint(request))
    inputs = {"image": image, "mask_image": mask, "strength": strength, "num_inference_steps": 5}
    assert_same(mine, one_by_one(peer, "dpmpp_2m", [3, 4], height=64, width=80, **inputs))
