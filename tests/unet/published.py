"""The `unet/config.json` of published models, each with the keys that its age knew.

Written down by hand: a test opens no socket.
"""

from typing import Any

_DOWN = "CrossAttnDownBlock2D"
_UP = "CrossAttnUpBlock2D"

_SD1: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": [_DOWN, _DOWN, _DOWN, "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", _UP, _UP, _UP],
}
_SD2 = _SD1 | {
    "_diffusers_version": "0.8.0",
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "dual_cross_attention": False,
    "only_cross_attention": False,
    "use_linear_projection": True,
}
_SDXL = _SD1 | {
    "_diffusers_version": "0.19.0.dev0",
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "mid_block_only_cross_attention": None,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "sample_size": 128,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "upcast_attention": None,
    "use_linear_projection": True,
}

PUBLISHED: dict[str, dict[str, Any]] = {
    "sd14": _SD1 | {"_diffusers_version": "0.2.2"},
    "sd15": _SD1,
    "sd15-inpainting": _SD1
    | {
        "_diffusers_version": "0.6.0.dev0",
        "_name_or_path": "./stable-diffusion-inpainting/unet",
        "in_channels": 9,
    },
    "instruct-pix2pix": _SD1
    | {
        "_diffusers_version": "0.10.0.dev0",
        "dual_cross_attention": False,
        "in_channels": 8,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "num_class_embeds": None,
        "only_cross_attention": False,
        "resnet_time_scale_shift": "default",
        "upcast_attention": False,
        "use_linear_projection": False,
    },
    "sd20-base": _SD2,
    "sd20-inpainting": _SD2 | {"in_channels": 9},
    "sd20-depth": _SD2 | {"in_channels": 5, "sample_size": 32},
    "sd21": _SD2
    | {
        "_diffusers_version": "0.10.0.dev0",
        "num_class_embeds": None,
        "sample_size": 96,
        "upcast_attention": True,
    },
    "sdxl": _SDXL
    | {
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "cross_attention_dim": 2048,
        "down_block_types": ["DownBlock2D", _DOWN, _DOWN],
        "projection_class_embeddings_input_dim": 2816,
        "transformer_layers_per_block": [1, 2, 10],
        "up_block_types": [_UP, _UP, "UpBlock2D"],
    },
    "sdxl-refiner": _SDXL
    | {
        "attention_head_dim": [6, 12, 24, 24],
        "block_out_channels": [384, 768, 1536, 1536],
        "cross_attention_dim": 1280,
        "down_block_types": ["DownBlock2D", _DOWN, _DOWN, "DownBlock2D"],
        "projection_class_embeddings_input_dim": 2560,
        "transformer_layers_per_block": 4,
        "up_block_types": ["UpBlock2D", _UP, _UP, "UpBlock2D"],
    },
}
