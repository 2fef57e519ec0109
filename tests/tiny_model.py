"""A model of every part at a few thousand parameters, with random weights."""

from dataclasses import replace
from pathlib import Path

import torch

from sd_adapters import Lora, LoraConfig, save_loras
from sd_pipeline import Classes, Parts, Scheduler, load_unet
from sd_sampler import DiffusionConfig
from sd_textenc import CLIPTextConfig, CLIPTextEncoder, train_tokenizer
from sd_unet import DiT, DiTConfig, UNet, UNetConfig
from sd_vae import AutoencoderKL, VAEConfig

CAPTIONS = ("a cat on a mat", "two black dogs under a tree, night sky")


def tiny_parts(prediction: str = "v", in_channels: int = 4) -> Parts:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(CAPTIONS, context_length=12)
    text = CLIPTextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=2,
        max_positions=12,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    unet = UNet(
        UNetConfig(
            sample_size=8,
            in_channels=in_channels,
            block_out_channels=(32, 64),
            attention_levels=(False, True),
            layers_per_block=1,
            cross_attention_dim=32,
            num_heads=4,
        )
    )
    vae = AutoencoderKL(
        VAEConfig(
            block_out_channels=(32, 32, 32, 32),
            layers_per_block=1,
            sample_size=64,
            scaling_factor=0.9,
        )
    )
    # A new network's last layers are zero, and such a network would hide every difference.
    with torch.no_grad():
        for module in (unet, vae):
            for parameter in module.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.1)
    return Parts(
        unet=unet,
        vae=vae,
        text_encoder=CLIPTextEncoder(text, tokenizer),
        scheduler=Scheduler(diffusion=DiffusionConfig(prediction=prediction)),
    )


CLASSES = ("dog", "cat, kitten", "tree (oak)")


def tiny_class_parts(*, dit: bool = False) -> Parts:
    """Return a model that is told classes and hears no text."""
    parts = tiny_parts()
    torch.manual_seed(2)
    number = len(CLASSES) + 1
    network: UNet | DiT
    if dit:
        network = DiT(
            DiTConfig(
                sample_size=8,
                channels=32,
                num_layers=2,
                num_heads=2,
                cross_attention_dim=None,
                num_class_embeds=number,
            )
        )
    else:
        network = UNet(replace(parts.unet.config.without_text(), num_class_embeds=number))
    return replace(parts, unet=_told(network), text_encoder=None, classes=Classes(names=CLASSES))


def tiny_text_and_class_parts() -> Parts:
    """Return a model that hears a text and is told a class beside it."""
    parts = tiny_parts()
    torch.manual_seed(2)
    network = UNet(replace(parts.unet.config, num_class_embeds=len(CLASSES) + 1))
    return replace(parts, unet=_told(network), classes=Classes(names=CLASSES))


def _told(network: UNet | DiT) -> UNet | DiT:
    # As above, nothing may be zero; and classes are to be told apart.
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
        network.class_embedding.weight.normal_()
    return network.eval()


def write_lora(model: Path, path: Path) -> Path:
    """Write a LoRA of a tiny model's folder that changes its pictures, and return where it lies."""
    torch.manual_seed(0)
    config = LoraConfig(rank=2, targets=("to_k", "conv1"))
    lora = Lora.create(load_unet(model / "unet"), config)
    with torch.no_grad():
        for parameter in lora.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    save_loras(path, [lora])
    return path
