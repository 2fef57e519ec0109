"""Tensor files: lazy reading, atomic writes and the key-map engine."""

from sd_checkpoint.atomic import atomic_path
from sd_checkpoint.checkpoint import Checkpoint
from sd_checkpoint.collection import no_collection
from sd_checkpoint.errors import CheckpointError, name_keys
from sd_checkpoint.folders import has_weights, open_weights
from sd_checkpoint.json_files import load_config, load_json, save_json
from sd_checkpoint.keymap import AnyRule, Fuse, KeyMap, Rule, Split, beneath
from sd_checkpoint.lazy import only, release
from sd_checkpoint.load import load_into
from sd_checkpoint.pickles import load_pickle
from sd_checkpoint.save import save_safetensors
from sd_checkpoint.skeleton import skeleton

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
    "has_weights",
    "load_config",
    "load_into",
    "load_json",
    "load_pickle",
    "name_keys",
    "no_collection",
    "only",
    "open_weights",
    "release",
    "save_json",
    "save_safetensors",
    "skeleton",
]
