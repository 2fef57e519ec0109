"""The models that are measured: the embedded one, and random weights in three sizes."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

import sd_textenc
import sd_unet
import sd_vae
from sd_pipeline import Parts, Scheduler, save_model
from sd_sampler import DiffusionConfig
from sd_scenes import model_folder

_CAPTIONS = ("a cat on a mat", "two black dogs under a tree, night sky")


def folder_of(size: str, folder: Path) -> Path:
    """Return the folder of the model of a size, which both sides open; make it where there is none.

    Random weights are written below `folder`, once, as float16, which is what published models are
    stored in.
    """
    if size == "embedded":
        return model_folder()
    place = folder / size
    if not (place / "model_index.json").is_file():
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            parts = _tiny() if size == "tiny" else _sd15(shallow=size == "sd15-shallow")
            for network in (parts.unet, parts.vae):
                _make_all_random(network)
        save_model(place, parts)
    return place


def _sd15(*, shallow: bool) -> Parts:
    """Return SD 1.5's parts, or shallow ones: of the same widths, one layer a block, not two."""
    unet = replace(sd_unet.sd15(), layers_per_block=1) if shallow else sd_unet.sd15()
    return Parts(
        unet=sd_unet.UNet(unet),
        vae=sd_vae.AutoencoderKL(sd_vae.sd15()),
        text_encoder=sd_textenc.CLIPTextEncoder(sd_textenc.vit_l14(), sd_textenc.clip_tokenizer()),
        scheduler=_scheduler(),
    )


def _tiny() -> Parts:
    """Return every part at a few thousand parameters, for pictures of 64 x 64."""
    tokenizer = sd_textenc.train_tokenizer(_CAPTIONS, context_length=12)
    text = sd_textenc.CLIPTextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=2,
        max_positions=12,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    unet = sd_unet.UNetConfig(
        sample_size=8,
        block_out_channels=(32, 64),
        attention_levels=(False, True),
        layers_per_block=1,
        cross_attention_dim=32,
        num_heads=4,
    )
    widths = (32, 32, 32, 32)
    vae = sd_vae.VAEConfig(block_out_channels=widths, layers_per_block=1, sample_size=64)
    return Parts(
        unet=sd_unet.UNet(unet),
        vae=sd_vae.AutoencoderKL(vae),
        text_encoder=sd_textenc.CLIPTextEncoder(text, tokenizer),
        scheduler=_scheduler(),
    )


def _scheduler() -> Scheduler:
    return Scheduler(diffusion=DiffusionConfig(), sampler="euler", schedule=None)


def _make_all_random(network: nn.Module) -> None:
    """Leave no layer at nought or one: such a layer would hide every difference behind it."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.any():
            module.reset_parameters()
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
            nn.init.normal_(module.weight, mean=1.0, std=0.1)
            nn.init.normal_(module.bias, std=0.1)
