"""The `vae/config.json` of published models, each with the keys that its age knew.

Written down by hand: a test opens no socket.
"""

from typing import Any

_SD1: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}

PUBLISHED: dict[str, dict[str, Any]] = {
    "sd14": {k: v for k, v in _SD1.items() if k != "norm_num_groups"}
    | {"_diffusers_version": "0.2.2"},
    "sd15": _SD1,
    "sd-vae-ft-mse": _SD1 | {"_diffusers_version": "0.4.2", "sample_size": 256},
    "sd21": _SD1 | {"_diffusers_version": "0.10.0.dev0", "sample_size": 768},
    "sdxl": _SD1
    | {
        "_diffusers_version": "0.20.0.dev0",
        "_name_or_path": "../sdxl-vae/",
        "force_upcast": True,
        "sample_size": 1024,
        "scaling_factor": 0.13025,
    },
}
