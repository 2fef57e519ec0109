"""Tiny diffusers pipelines of every family, with random weights, and the pictures they draw."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image

from sd_textenc import clip_tokenizer

PROMPT, NEGATIVE = "a photo of a red fox in the snow, 35mm", "blurry, low quality"
WIDTH = 64  # of the text encoders: one head, as wide as all heads of the real ones
WIDTH_2 = 128  # of SDXL's second: diffusers tells the two apart in a single file by their widths


def tokenizer(folder: Path, pad_token: str) -> transformers.CLIPTokenizer:
    folder.mkdir(parents=True)
    for name, text in clip_tokenizer(pad_token=pad_token).files().items():
        (folder / name).write_text(text, encoding="utf-8")
    return transformers.CLIPTokenizer.from_pretrained(folder)


def text_encoder(hidden_act: str, *, projected: bool, width: int = WIDTH) -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=width // WIDTH,
        hidden_act=hidden_act,
        projection_dim=width,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=1,
    )
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    return kind(config).eval()


def vae(scaling_factor: float, *, force_upcast: bool = False) -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        sample_size=64,
        scaling_factor=scaling_factor,
        force_upcast=force_upcast,
    ).eval()


def unet(**settings: Any) -> diffusers.UNet2DConditionModel:
    """Build a UNet whose heads and sizes are those that a single file's shapes imply."""
    common = {
        "sample_size": 8,
        "in_channels": 4,
        "block_out_channels": (64, 128),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": WIDTH,
    }
    linear = {"use_linear_projection": True, "attention_head_dim": (1, 2)}
    heads = linear if settings.pop("linear") else {"attention_head_dim": 8}
    return diffusers.UNet2DConditionModel(**{**common, **heads, **settings}).eval()


def scheduler(prediction_type: str, *, zero_snr: bool = False) -> diffusers.EulerDiscreteScheduler:
    return diffusers.EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        rescale_betas_zero_snr=zero_snr,
        timestep_spacing="trailing" if zero_snr else "leading",
        steps_offset=1,
    )


def _plain(folder: Path, kind: str, in_channels: int, prediction: str) -> Any:
    second = kind == "sd2"
    parts = {
        "text_encoder": text_encoder("gelu" if second else "quick_gelu", projected=False),
        "tokenizer": tokenizer(folder / "tok", "!" if second else "<|endoftext|>"),
        "unet": unet(
            linear=second, in_channels=in_channels, upcast_attention=prediction != "epsilon"
        ),
        "vae": vae(0.18215),
        "scheduler": scheduler(prediction),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    if in_channels == 9:
        return diffusers.StableDiffusionInpaintPipeline(**parts)
    if in_channels == 8:
        return diffusers.StableDiffusionInstructPix2PixPipeline(**parts)
    if in_channels == 5:
        del parts["safety_checker"], parts["requires_safety_checker"]
        return diffusers.StableDiffusionDepth2ImgPipeline(**parts, depth_estimator=None)
    return diffusers.StableDiffusionPipeline(**parts)


def sd1(folder: Path) -> Any:
    return _plain(folder, "sd1", 4, "epsilon")


def sd1_inpaint(folder: Path) -> Any:
    return _plain(folder, "sd1", 9, "epsilon")


def sd2_v(folder: Path) -> Any:
    return _plain(folder, "sd2", 4, "v_prediction")


def sd2_inpaint(folder: Path) -> Any:
    return _plain(folder, "sd2", 9, "epsilon")


def sd1_pix2pix(folder: Path) -> Any:
    return _plain(folder, "sd1", 8, "epsilon")


def sd2_pix2pix(folder: Path) -> Any:
    return _plain(folder, "sd2", 8, "v_prediction")


def sd2_depth(folder: Path) -> Any:
    return _plain(folder, "sd2", 5, "epsilon")


def _sdxl_unet(
    num_sizes: int, text_width: int, in_channels: int = 4
) -> diffusers.UNet2DConditionModel:
    return unet(
        linear=True,
        in_channels=in_channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=text_width,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=WIDTH_2 + num_sizes * 256,
    )


def sdxl(folder: Path, *, zero_snr: bool = False, in_channels: int = 4) -> Any:
    edits = diffusers.StableDiffusionXLInstructPix2PixPipeline
    kind = edits if in_channels == 8 else diffusers.StableDiffusionXLPipeline
    return kind(
        text_encoder=text_encoder("quick_gelu", projected=False),
        tokenizer=tokenizer(folder / "tok1", "<|endoftext|>"),
        text_encoder_2=text_encoder("gelu", projected=True, width=WIDTH_2),
        tokenizer_2=tokenizer(folder / "tok2", "!"),
        unet=_sdxl_unet(6, WIDTH + WIDTH_2, in_channels),
        vae=vae(0.13025, force_upcast=True),
        scheduler=scheduler("v_prediction" if zero_snr else "epsilon", zero_snr=zero_snr),
        add_watermarker=False,
    )


def sdxl_v(folder: Path) -> Any:
    return sdxl(folder, zero_snr=True)


def sdxl_pix2pix(folder: Path) -> Any:
    return sdxl(folder, in_channels=8)


def refiner(folder: Path) -> Any:
    return diffusers.StableDiffusionXLImg2ImgPipeline(
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=text_encoder("gelu", projected=True, width=WIDTH_2),
        tokenizer_2=tokenizer(folder / "tok2", "!"),
        unet=_sdxl_unet(5, WIDTH_2),
        vae=vae(0.13025, force_upcast=True),
        scheduler=scheduler("epsilon"),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


FAMILIES: Mapping[str, Callable[[Path], Any]] = {
    "sd1": sd1,
    "sd1-inpaint": sd1_inpaint,
    "sd2-v": sd2_v,
    "sd2-inpaint": sd2_inpaint,
    "sdxl": sdxl,
    "sdxl-v": sdxl_v,
    "refiner": refiner,
}


EDITORS: Mapping[str, Callable[[Path], Any]] = {
    "sd1-pix2pix": sd1_pix2pix,
    "sd2-pix2pix": sd2_pix2pix,
    "sdxl-pix2pix": sdxl_pix2pix,
    "sd2-depth": sd2_depth,
}
"""Models that are shown a picture, or its depth, beside the latents."""


def randomize(pipeline: Any) -> None:
    """Give every weight a random value, for some layers start at zero or one."""
    torch.manual_seed(0)
    with torch.no_grad():
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            for parameter in part.parameters() if part is not None else ():
                if not parameter.any():
                    parameter.normal_(std=0.05)


def draw(
    pipeline: Any,
    *,
    size: tuple[int, int],
    seeds: list[int],
    steps: int,
    guidance: float,
    negative: str | None,
) -> np.ndarray:
    """Return the pictures (B, H, W, 3) that diffusers draws, as whole numbers."""
    pipeline.set_progress_bar_config(disable=True)
    width, height = size
    number = len(seeds)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    settings = {
        "prompt": [PROMPT] * number,
        "negative_prompt": None if negative is None else [negative] * number,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "generator": generators,
        "output_type": "np",
    }
    blank = Image.new("RGB", (width, height), (127, 127, 127))
    if "Inpaint" in type(pipeline).__name__:
        mask = Image.new("L", (width, height), 255)
        settings |= {"image": [blank] * number, "mask_image": [mask] * number, "strength": 1.0}
        settings |= {"width": width, "height": height}
    elif "Img2Img" in type(pipeline).__name__:
        # From pure noise: what is given as latents is taken as it is.
        pipeline.scheduler.set_timesteps(steps)
        shape = (1, 4, height // 8, width // 8)
        noise = torch.cat([torch.randn(shape, generator=one) for one in generators])
        latents = noise * pipeline.scheduler.init_noise_sigma
        settings |= {"image": [blank] * number, "strength": 1.0, "latents": latents}
    else:
        settings |= {"width": width, "height": height}
    images = pipeline(**settings).images
    return (np.asarray(images) * 255).round().astype(int)
