"""Text in, picture out: joins text encoder, denoiser, sampler and autoencoder."""

from sd_pipeline.errors import PipelineError
from sd_pipeline.folder import (
    Parts,
    load_model,
    load_text_encoder,
    load_tokenizer,
    load_unet,
    load_vae,
    save_model,
    save_vae,
)
from sd_pipeline.picture import Picture, check_out, save_picture, to_images
from sd_pipeline.pipeline import Defaults, Pipeline, load_pipeline, resolve_device, resolve_dtype
from sd_pipeline.record import Record
from sd_pipeline.request import Txt2Img
from sd_pipeline.scheduler import Scheduler

__all__ = [
    "Defaults",
    "Parts",
    "Picture",
    "Pipeline",
    "PipelineError",
    "Record",
    "Scheduler",
    "Txt2Img",
    "check_out",
    "load_model",
    "load_pipeline",
    "load_text_encoder",
    "load_tokenizer",
    "load_unet",
    "load_vae",
    "resolve_device",
    "resolve_dtype",
    "save_model",
    "save_picture",
    "save_vae",
    "to_images",
]
