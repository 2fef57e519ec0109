"""Adapters that are injected into a model and ejected without a trace."""

from sd_adapters.adapter import Adapter, AdapterError
from sd_adapters.kohya import load_loras, save_loras
from sd_adapters.lora import Lora, LoraConfig, LoraLayer

__all__ = [
    "Adapter",
    "AdapterError",
    "Lora",
    "LoraConfig",
    "LoraLayer",
    "load_loras",
    "save_loras",
]
