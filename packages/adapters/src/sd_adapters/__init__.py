"""Adapters that are injected into a model and ejected without a trace."""

from sd_adapters.adapter import Adapter, AdapterError
from sd_adapters.aliases import aliases_through
from sd_adapters.diffusers_layout import from_diffusers, is_diffusers, kohya_keys, to_diffusers
from sd_adapters.embedding import Embedding
from sd_adapters.embedding_file import EmbeddingLayout, load_embedding, save_embedding
from sd_adapters.full_layer import FullLayer
from sd_adapters.hypernetwork import Hypernetwork, HypernetworkModule
from sd_adapters.hypernetwork_config import ACTIVATIONS, INITIALISATIONS, HypernetworkConfig
from sd_adapters.hypernetwork_file import load_hypernetwork, save_hypernetwork
from sd_adapters.kohya import dotted_paths, load_loras, save_diffusers_loras, save_loras
from sd_adapters.layer import WeightLayer
from sd_adapters.loha import LohaLayer
from sd_adapters.lokr import KroneckerForm, LokrLayer
from sd_adapters.lora import Lora
from sd_adapters.lora_config import LoraConfig, LoraKind
from sd_adapters.lora_extract import Extracted, extract_lora
from sd_adapters.lora_info import LayerInfo, LoraInfo, describe_lora
from sd_adapters.lora_layer import LoraLayer
from sd_adapters.lora_merge import merge_loras
from sd_adapters.lora_resize import Reduced, resize_lora
from sd_adapters.lora_svd import Reduction
from sd_adapters.origin import Origin
from sd_adapters.targets import flat_name, keys_by_name, paths_by_name, with_text_model
from sd_adapters.textual_inversion import TextualInversion

__all__ = [
    "ACTIVATIONS",
    "INITIALISATIONS",
    "Adapter",
    "AdapterError",
    "Embedding",
    "EmbeddingLayout",
    "Extracted",
    "FullLayer",
    "Hypernetwork",
    "HypernetworkConfig",
    "HypernetworkModule",
    "KroneckerForm",
    "LayerInfo",
    "LohaLayer",
    "LokrLayer",
    "Lora",
    "LoraConfig",
    "LoraInfo",
    "LoraKind",
    "LoraLayer",
    "Origin",
    "Reduced",
    "Reduction",
    "TextualInversion",
    "WeightLayer",
    "aliases_through",
    "describe_lora",
    "dotted_paths",
    "extract_lora",
    "flat_name",
    "from_diffusers",
    "is_diffusers",
    "keys_by_name",
    "kohya_keys",
    "load_embedding",
    "load_hypernetwork",
    "load_loras",
    "merge_loras",
    "paths_by_name",
    "resize_lora",
    "save_diffusers_loras",
    "save_embedding",
    "save_hypernetwork",
    "save_loras",
    "to_diffusers",
    "with_text_model",
]
