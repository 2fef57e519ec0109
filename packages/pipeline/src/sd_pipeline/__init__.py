"""Text in, picture out: joins text encoder, denoiser, sampler and autoencoder."""

from sd_pipeline.adapter_places import adapter_aliases, adapter_models
from sd_pipeline.adapter_use import AdapterUse
from sd_pipeline.adapting import AdapterShelf
from sd_pipeline.animation import ANIMATIONS, animation_bytes
from sd_pipeline.autoencoding import Tiling, check_tiling, decode_latents, encode_pixels
from sd_pipeline.classes import Classes
from sd_pipeline.compiled_unet import CompiledUNet
from sd_pipeline.defaults import Defaults, read_defaults
from sd_pipeline.denoising import OnStep, Step
from sd_pipeline.depth import read_depth
from sd_pipeline.engine import ENGINES, Engine, EngineName, PlainUNet, Preparation
from sd_pipeline.errors import PipelineError
from sd_pipeline.families import FAMILIES, Family
from sd_pipeline.folder import load_tokenizer, open_folder, save_vae, write_folder
from sd_pipeline.graphed_unet import GraphedUNet
from sd_pipeline.hub import HubName, cached, cached_models, pull
from sd_pipeline.image_encoder import load_image_encoder, save_image_encoder
from sd_pipeline.images import extended, read_image, to_images, to_pixels
from sd_pipeline.info import ModelInfo, PartInfo, inspect_model, sha256, weight_file
from sd_pipeline.metadata import Metadata, parse_parameters, read_metadata
from sd_pipeline.mixing import NETWORKS, mix_models
from sd_pipeline.model import Model, Part, TextPart
from sd_pipeline.openvino_import import load_openvino
from sd_pipeline.openvino_unet import OpenVINOUNet
from sd_pipeline.parts import (
    Parts,
    as_model,
    build,
    build_vae,
    hollow,
    save_model,
    save_text_encoder,
)
from sd_pipeline.picture import Picture, check_out, save_picture
from sd_pipeline.picture_file import check_fits, sheet_bytes
from sd_pipeline.picture_format import PictureFormat
from sd_pipeline.picture_opener import PictureError, decode_picture, open_picture
from sd_pipeline.pipeline import Pipeline, load_pipeline, resolve_device
from sd_pipeline.precision import DTYPES, name_of, resolve_dtype
from sd_pipeline.preview import Preview, fit_preview
from sd_pipeline.record import Record
from sd_pipeline.request import Blend, Img2Img, Inpaint, Outpaint, Txt2Img
from sd_pipeline.scheduler import Scheduler
from sd_pipeline.single_file import open_single_file
from sd_pipeline.single_file_writer import write_single_file
from sd_pipeline.source import (
    find_scheduler,
    load_model,
    load_text_encoder,
    load_unet,
    load_vae,
    locate,
    open_model,
)
from sd_pipeline.tiny_vae import TinyVAE, open_tiny_vae
from sd_pipeline.with_loras import with_loras

__all__ = [
    "ANIMATIONS",
    "DTYPES",
    "ENGINES",
    "FAMILIES",
    "NETWORKS",
    "AdapterShelf",
    "AdapterUse",
    "Blend",
    "Classes",
    "CompiledUNet",
    "Defaults",
    "Engine",
    "EngineName",
    "Family",
    "GraphedUNet",
    "HubName",
    "Img2Img",
    "Inpaint",
    "Metadata",
    "Model",
    "ModelInfo",
    "OnStep",
    "OpenVINOUNet",
    "Outpaint",
    "Part",
    "PartInfo",
    "Parts",
    "Picture",
    "PictureError",
    "PictureFormat",
    "Pipeline",
    "PipelineError",
    "PlainUNet",
    "Preparation",
    "Preview",
    "Record",
    "Scheduler",
    "Step",
    "TextPart",
    "Tiling",
    "TinyVAE",
    "Txt2Img",
    "adapter_aliases",
    "adapter_models",
    "animation_bytes",
    "as_model",
    "build",
    "build_vae",
    "cached",
    "cached_models",
    "check_fits",
    "check_out",
    "check_tiling",
    "decode_latents",
    "decode_picture",
    "encode_pixels",
    "extended",
    "find_scheduler",
    "fit_preview",
    "hollow",
    "inspect_model",
    "load_image_encoder",
    "load_model",
    "load_openvino",
    "load_pipeline",
    "load_text_encoder",
    "load_tokenizer",
    "load_unet",
    "load_vae",
    "locate",
    "mix_models",
    "name_of",
    "open_folder",
    "open_model",
    "open_picture",
    "open_single_file",
    "open_tiny_vae",
    "parse_parameters",
    "pull",
    "read_defaults",
    "read_depth",
    "read_image",
    "read_metadata",
    "resolve_device",
    "resolve_dtype",
    "save_image_encoder",
    "save_model",
    "save_picture",
    "save_text_encoder",
    "save_vae",
    "sha256",
    "sheet_bytes",
    "to_images",
    "to_pixels",
    "weight_file",
    "with_loras",
    "write_folder",
    "write_single_file",
]
