"""The model families: one line of a table each, and how a model's family is told."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from sd_pipeline.errors import PipelineError
from sd_pipeline.scheduler import Scheduler
from sd_sampler import DiffusionConfig

TASKS: Mapping[int, str] = MappingProxyType({0: "txt2img", 5: "inpaint", 4: "pix2pix", 1: "depth"})
"""What a UNet is for, by the channels it takes beyond the latents' own: nothing; a mask and a
masked picture's latents; a picture's latents; a depth map."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tower:
    """Place one text encoder: its folders in the diffusers layout, its prefix in a single file.

    `pad_token` fills the context of its prompts: <|endoftext|> for OpenAI's CLIP, "!" (id 0) for
    OpenCLIP.
    """

    folder: str
    tokenizer: str
    prefix: str
    pad_token: str = "<|endoftext|>"


_FIRST = Tower(folder="text_encoder", tokenizer="tokenizer", prefix="cond_stage_model.")
_SCALED_LINEAR = DiffusionConfig()


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Hold what a single file does not say of itself, and what a folder's index must say.

    `mark` begins a key that single files of this family alone have; `sample_size` is the side of
    the latents that it was trained on; `guidance_scale` suits it; `pipelines` are diffusers'
    classes by task; `architecture` is the name in `modelspec` metadata.
    """

    name: str
    title: str
    mark: str
    towers: tuple[Tower, ...]
    pipelines: Mapping[str, str]
    architecture: str
    sample_size: int = 64
    scaling_factor: float = 0.18215
    guidance_scale: float = 7.5
    scheduler: Scheduler = field(default=Scheduler(diffusion=_SCALED_LINEAR))
    zeros_for_empty: bool = False


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            Family(
                name="sdxl",
                title="Stable Diffusion XL",
                mark="conditioner.embedders.1.model.",
                towers=(
                    Tower(
                        folder="text_encoder",
                        tokenizer="tokenizer",
                        prefix="conditioner.embedders.0.",
                    ),
                    Tower(
                        folder="text_encoder_2",
                        tokenizer="tokenizer_2",
                        prefix="conditioner.embedders.1.",
                        pad_token="!",
                    ),
                ),
                pipelines=MappingProxyType(
                    {
                        "txt2img": "StableDiffusionXLPipeline",
                        "inpaint": "StableDiffusionXLInpaintPipeline",
                        "pix2pix": "StableDiffusionXLInstructPix2PixPipeline",
                    }
                ),
                architecture="stable-diffusion-xl-v1-base",
                sample_size=128,
                scaling_factor=0.13025,
                guidance_scale=5.0,
                scheduler=Scheduler(diffusion=_SCALED_LINEAR, sampler="euler", schedule=None),
                zeros_for_empty=True,
            ),
            Family(
                name="sdxl-refiner",
                title="Stable Diffusion XL refiner",
                mark="conditioner.embedders.0.model.",
                towers=(
                    Tower(
                        folder="text_encoder_2",
                        tokenizer="tokenizer_2",
                        prefix="conditioner.embedders.0.",
                        pad_token="!",
                    ),
                ),
                pipelines=MappingProxyType({"txt2img": "StableDiffusionXLImg2ImgPipeline"}),
                architecture="stable-diffusion-xl-v1-refiner",
                sample_size=128,
                scaling_factor=0.13025,
                guidance_scale=5.0,
                scheduler=Scheduler(diffusion=_SCALED_LINEAR, sampler="euler", schedule=None),
            ),
            Family(
                name="sd2",
                title="Stable Diffusion 2.x",
                mark="cond_stage_model.model.",
                towers=(replace(_FIRST, pad_token="!"),),
                pipelines=MappingProxyType(
                    {
                        "txt2img": "StableDiffusionPipeline",
                        "inpaint": "StableDiffusionInpaintPipeline",
                        "pix2pix": "StableDiffusionInstructPix2PixPipeline",
                        "depth": "StableDiffusionDepth2ImgPipeline",
                    }
                ),
                architecture="stable-diffusion-v2",
            ),
            Family(
                name="sd1",
                title="Stable Diffusion 1.x",
                mark="cond_stage_model.transformer.",
                towers=(_FIRST,),
                pipelines=MappingProxyType(
                    {
                        "txt2img": "StableDiffusionPipeline",
                        "inpaint": "StableDiffusionInpaintPipeline",
                        "pix2pix": "StableDiffusionInstructPix2PixPipeline",
                        "depth": "StableDiffusionDepth2ImgPipeline",
                    }
                ),
                architecture="stable-diffusion-v1",
            ),
        )
    }
)

CLASSES = Family(
    name="classes",
    title="Latent diffusion told by classes",
    mark="",
    towers=(),
    pipelines=MappingProxyType({"txt2img": "ClassToImagePipeline"}),
    architecture="latent-diffusion-classes",
    guidance_scale=4.0,
)
"""Models without a text encoder, which no single file holds; diffusers has no class for them."""

# Files that people take for models, by a part of a key that they have.
_OTHERS = MappingProxyType(
    {
        "lora_": "a LoRA adapter",
        ".lora": "a LoRA adapter",
        "hada_w1": "a LyCORIS adapter",
        "lokr_w1": "a LyCORIS adapter",
        "emb_params": "a textual-inversion embedding",
        "control_model.": "a ControlNet",
        "controlnet_": "a ControlNet",
        "joint_blocks.": "a Stable Diffusion 3 model",
        "double_blocks.": "a FLUX model",
        "decoder.up.": "an autoencoder alone",
        "decoder.up_blocks.": "an autoencoder alone",
        "down_blocks.": "a UNet alone, in the diffusers layout",
    }
)


def family_of_keys(keys: Collection[str], *, what: str) -> Family:
    """Tell a single file's family by its marks; `what` names the file in errors.

    Raises `PipelineError` saying what the file is instead, where it can be told.
    """
    for family in FAMILIES.values():
        if any(key.startswith(family.mark) for key in keys):
            return family
    for mark, other in _OTHERS.items():
        if any(mark in key for key in keys):
            raise PipelineError(f"{what} is {other}, not a whole model; name a model's file")
    raise PipelineError(
        f"{what} is of no known family: it has no text encoder under cond_stage_model or "
        "conditioner; Stable Diffusion 1.x, 2.x and XL can be opened"
    )


def task_of_channels(in_channels: int, latent_channels: int) -> str:
    """Tell what a UNet is for; raises `PipelineError` for a number of channels unheard of."""
    extra = in_channels - latent_channels
    if extra not in TASKS:
        raise PipelineError(
            f"the UNet takes {in_channels} channels for latents of {latent_channels}; "
            f"{', '.join(str(latent_channels + more) for more in sorted(TASKS))} can be used"
        )
    return TASKS[extra]


def task_of_pipeline(class_name: str) -> str | None:
    """Return the task of one of diffusers' pipeline classes, None for one that is not ours."""
    for family in (*FAMILIES.values(), CLASSES):
        for task, name in family.pipelines.items():
            if name == class_name:
                return task
    return None
