"""Tensor files: lazy safetensors, atomic writes and the key-map engine."""

from sd_checkpoint.atomic import atomic_path
from sd_checkpoint.errors import CheckpointError
from sd_checkpoint.files import Checkpoint, load_json, save_json, save_safetensors
from sd_checkpoint.keymap import AnyRule, Fuse, KeyMap, Rule, Split, beneath
from sd_checkpoint.load import load_into

__all__ = [
    "AnyRule",
    "Checkpoint",
    "CheckpointError",
    "Fuse",
    "KeyMap",
    "Rule",
    "Split",
    "atomic_path",
    "beneath",
    "load_into",
    "load_json",
    "save_json",
    "save_safetensors",
]
