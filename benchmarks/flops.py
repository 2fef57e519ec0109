"""How much a target computes, counted and not guessed: the network runs on the meta device."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.case import Case
from benchmarks.learning import make_lesson, unet_skeleton
from sd_checkpoint import load_json, skeleton
from sd_unet import UNet, UNetConfig
from sd_vae import AutoencoderKL, VAEConfig


def count_flops(case: Case) -> int:
    """Return the FLOP of a target: products and sums of convolutions and matrix products.


    A guided step is two samples a picture, nothing shared between them. The text encoder of a
    txt2img, about one part in 2,500 of SD 1.5's twenty steps, is left out. A training step is a
    pass forward and one back, which is half as much through weights that are frozen; a LoRA's own
    products, some thousandths, are left out. DreamBooth's is of two pictures for each of the batch.
    """
    if case.target == "decode":
        return _of_decode(case)
    if case.target == "train":
        return _of_training(case)
    step = _of_step(case)
    return step if case.target == "step" else case.steps * step + _of_decode(case)


def _of_training(case: Case) -> int:
    lesson = make_lesson(case)
    with unet_skeleton(case) as unet:
        unet.requires_grad_(case.learns_all)
        latents = torch.empty(lesson.latents.shape, requires_grad=not case.learns_all)
        states, timesteps = torch.empty(lesson.states.shape), torch.empty(case.num_shown)
        unet.set_attention_backend("sdpa")
        with FlopCounterMode(display=False) as counter:
            torch.autograd.backward(unet(latents, timesteps, states).sum())
    total: int = counter.get_total_flops()
    return total


@torch.no_grad()
def _of_step(case: Case) -> int:
    config = UNetConfig.from_diffusers(load_json(case.place / "unet" / "config.json"))
    text = load_json(case.place / "text_encoder" / "config.json")
    rows, shape = 2 * case.batch, _latent(case)
    assert config.cross_attention_dim is not None, "a case has prompts"
    with skeleton():
        unet = UNet(config).eval()
        latents = torch.empty(rows, config.in_channels, *shape)
        states = torch.empty(rows, text["max_position_embeddings"], config.cross_attention_dim)
        timesteps = torch.empty(rows)
    unet.set_attention_backend("sdpa")
    with FlopCounterMode(display=False) as counter:
        unet(latents, timesteps, states)
    total: int = counter.get_total_flops()
    return total


@torch.no_grad()
def _of_decode(case: Case) -> int:
    config = _vae(case)
    with skeleton():
        vae = AutoencoderKL(config).eval()
        z = torch.empty(case.batch, config.latent_channels, *_latent(case))
    vae.set_attention_backend("sdpa")
    with FlopCounterMode(display=False) as counter:
        vae.decode(z)
    total: int = counter.get_total_flops()
    return total


def _vae(case: Case) -> VAEConfig:
    return VAEConfig.from_diffusers(load_json(case.place / "vae" / "config.json"))


def _latent(case: Case) -> tuple[int, int]:
    factor = _vae(case).downsampling
    return case.height // factor, case.width // factor
