"""Where adapters attach to a model, under the names that their files have."""

from collections.abc import Mapping

from torch import nn

from sd_adapters import aliases_through
from sd_pipeline.parts import Parts
from sd_unet import ldm_key_map

UNET = "lora_unet"


def adapter_models(parts: Parts) -> dict[str, nn.Module]:
    """Return the networks that a LoRA may change by kohya's prefixes for them.

    `lora_unet`, and `lora_te_text_model` or, where there are two text encoders,
    `lora_te1_text_model` and `lora_te2_text_model`.
    """
    bodies = [tower.body for tower in parts.towers]
    numbers = [""] if len(bodies) == 1 else [str(number + 1) for number in range(len(bodies))]
    text = {
        f"lora_te{number}_text_model": body for number, body in zip(numbers, bodies, strict=True)
    }
    return {UNET: parts.unet, **text}


def adapter_aliases(parts: Parts) -> Mapping[str, str]:
    """Return LDM's names of the UNet's layers, which kohya's files have for SDXL."""
    return aliases_through(ldm_key_map(parts.unet.config), parts.unet, UNET)
