"""Networks that are told classes, and a picture of a class, against diffusers'.

Copied random weights, 1e-5; diffusers has no pipeline that draws with a UNet2DModel and classes, so
its parts, opened from our folder, are put together here.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch import Tensor, nn

from sd_pipeline import Txt2Img, load_pipeline, save_model
from sd_unet import UNet, UNetConfig
from tests.tiny_model import CLASSES, tiny_class_parts

TOLERANCE = 1e-5
NUM_CLASSES = 5
WITH_TEXT = UNetConfig(
    sample_size=8,
    block_out_channels=(32, 64, 64),
    attention_levels=(True, False, True),
    layers_per_block=1,
    cross_attention_dim=24,
    num_heads=4,
    num_class_embeds=NUM_CLASSES,
)
CONFIGS = {
    "text": WITH_TEXT,
    "text-timestep": replace(WITH_TEXT, num_class_embeds=None, class_embed_type="timestep"),
    "text-identity": replace(WITH_TEXT, num_class_embeds=None, class_embed_type="identity"),
    "no-text": WITH_TEXT.without_text(),
    "no-text-two-layers": replace(
        WITH_TEXT.without_text(), layers_per_block=2, attention_levels=(False, True, False)
    ),
    "no-text-no-classes": replace(WITH_TEXT.without_text(), num_class_embeds=None),
}


def networks(config: UNetConfig) -> tuple[UNet, nn.Module]:
    """Return ours, and diffusers' by the config.json of ours, with one set of random weights."""
    torch.manual_seed(0)
    ours = UNet(config).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
            parameter.normal_(std=fan_in**-0.5)
    kind = UNet2DConditionModel if config.takes_text else UNet2DModel
    values = json.loads(json.dumps(config.to_diffusers()))
    assert UNetConfig.from_diffusers(values) == config
    peer = kind.from_config(values).eval()
    peer.load_state_dict(ours.state_dict())
    return ours, peer


def labels(config: UNetConfig) -> Tensor | None:
    if config.class_embed_type == "identity":
        generator = torch.Generator().manual_seed(3)
        return torch.randn(2, config.time_embed_dim, generator=generator)
    return torch.tensor([NUM_CLASSES - 1, 1]) if config.takes_classes else None


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_the_network_equals_diffusers(name: str) -> None:
    config = CONFIGS[name]
    ours, peer = networks(config)
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 16, generator=generator)
    timesteps = torch.tensor([3, 981])
    states = torch.randn(2, 7, 24, generator=generator) if config.takes_text else None
    told = {} if states is None else {"encoder_hidden_states": states}
    theirs = peer(latents, timesteps, class_labels=labels(config), **told).sample
    found = ours(latents, timesteps, states, class_labels=labels(config))
    assert theirs.std() > 0.01, "a test that compares zeros proves nothing"
    assert (found - theirs).abs().max() <= TOLERANCE * max(1.0, float(theirs.abs().max()))


@torch.no_grad()
def peers_picture(folder: Path, label: int, *, seed: int, num_steps: int, scale: float) -> Tensor:
    """Draw a class as diffusers' DiTPipeline does, with the parts of a folder: (H, W, 3)."""
    unet = UNet2DModel.from_pretrained(folder, subfolder="unet").eval()
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae").eval()
    scheduler = DPMSolverMultistepScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(num_steps)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    x = x * scheduler.init_noise_sigma
    labels = torch.tensor([label, len(CLASSES)])
    for timestep in scheduler.timesteps:
        both = scheduler.scale_model_input(torch.cat([x, x]), timestep)
        cond, uncond = unet(both, timestep, class_labels=labels).sample.chunk(2)
        x = scheduler.step(uncond + scale * (cond - uncond), timestep, x).prev_sample
    pixels = vae.decode(x / vae.config.scaling_factor).sample
    return ((pixels[0] / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0)


def test_a_picture_of_a_class_is_that_of_diffusers_parts_from_our_folder(tmp_path: Path) -> None:
    save_model(tmp_path / "model", tiny_class_parts(), dtype=torch.float32)
    pipeline = load_pipeline(tmp_path / "model", device="cpu")
    request = Txt2Img(prompt="kitten", seed=3, num_steps=6, guidance_scale=3.0)
    ours = np.asarray(next(iter(pipeline.txt2img(request))).image).astype(int)
    theirs = peers_picture(tmp_path / "model", 1, seed=3, num_steps=6, scale=3.0)
    assert ours.std() > 1
    assert np.abs(ours - theirs.numpy()).max() <= 1
