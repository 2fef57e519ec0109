"""What the values in a model's configs may be: a file can state anything, and does."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from sd_checkpoint import CheckpointError, load_config

_MAX_LISTED = 16
_MAX_TEXT = 200
_MAX_SHOWN = 60


@dataclass(frozen=True, slots=True)
class _Kind:
    """Say what a setting may be; `null` allows JSON's null.

    `listed` allows a list of such in its place, `many` wants one.
    """

    name: str
    types: tuple[type, ...]
    low: float = 0
    high: float = 0
    listed: bool = False
    null: bool = False
    many: bool = False

    def fits(self, value: object) -> bool:
        if value is None:
            return self.null
        if (self.listed or self.many) and isinstance(value, list):
            number = len(value)
            return 0 < number <= _MAX_LISTED and all(self._fits_one(entry) for entry in value)
        return not self.many and self._fits_one(value)

    def _fits_one(self, value: object) -> bool:
        # JSON's true is an int to Python.
        if isinstance(value, bool) and bool not in self.types:
            return False
        if not isinstance(value, self.types):
            return False
        if isinstance(value, str):
            return value.isprintable() and len(value) <= _MAX_TEXT
        return not isinstance(value, int | float) or self.low <= value <= self.high

    def __str__(self) -> str:
        if self.many:
            return f"a list of 1 to {_MAX_LISTED}, each {self.name}"
        several = f", or a list of up to {_MAX_LISTED} such" if self.listed else ""
        return f"{self.name}{several}{', or null' if self.null else ''}"


def _whole(low: int, high: int, *, listed: bool = False, null: bool = False) -> _Kind:
    return _Kind(f"a whole number from {low:,} to {high:,}", (int,), low, high, listed, null)


def _number(low: float, high: float) -> _Kind:
    return _Kind(f"a number from {low:,} to {high:,}", (int, float), low, high)


_SWITCH = _Kind("true or false", (bool,), 0, 1, null=True)
_NAME = _Kind("a line of text", (str,))
_NAMES = _Kind("a line of text", (str,), listed=True)

_CHANNELS = 2**16
_LAYERS = 64
_SIDE = 2**14

# One table for all the parts, for a name means the same in each. The numbers are far beyond every
# model of these families; they keep a broken or hostile config from building a network without end.
_KINDS: dict[str, _Kind] = {
    "_class_name": _NAME,
    "add_attention": _SWITCH,
    "addition_embed_type": replace(_NAME, null=True),
    "addition_time_embed_dim": _whole(1, _CHANNELS, null=True),
    "architectures": replace(_NAMES, null=True),
    "attention_head_dim": _whole(1, 1024, listed=True),
    "beta_end": _number(0, 1),
    "beta_schedule": _NAME,
    "beta_start": _number(0, 1),
    "block_out_channels": replace(_whole(1, _CHANNELS), many=True),
    "bos_token_id": _whole(0, 2**31),
    "channels": _whole(4, _CHANNELS),
    "class_embed_type": replace(_NAME, null=True),
    "clip_sample": _SWITCH,
    "clip_sample_range": _number(0, 2**16),
    "conditioning": _NAME,
    "cross_attention_dim": _whole(1, _CHANNELS, listed=True, null=True),
    "down_block_types": replace(_NAME, many=True),
    "eos_token_id": _whole(0, 2**31),
    "force_upcast": _SWITCH,
    "force_zeros_for_empty_prompt": _SWITCH,
    "hidden_act": _NAME,
    "hidden_size": _whole(1, _CHANNELS),
    "image_size": _whole(1, _SIDE),
    "in_channels": _whole(1, 1024),
    "intermediate_size": _whole(1, 4 * _CHANNELS),
    "latent_channels": _whole(1, 1024),
    "layer_norm_eps": _number(0, 1),
    "layers_per_block": _whole(1, _LAYERS // 4, listed=True),
    "long_skips": _SWITCH,
    "lookup_from_codebook": _SWITCH,
    "max_position_embeddings": _whole(1, 2**14),
    "mid_block_add_attention": _SWITCH,
    "model_type": _NAME,
    "norm_eps": _number(0, 1),
    "norm_num_groups": _whole(1, _CHANNELS),
    "norm_type": replace(_NAME, null=True),
    "num_attention_heads": _whole(1, 1024, null=True),
    "num_class_embeds": _whole(1, 2**20, null=True),
    "num_heads": _whole(1, 1024),
    "num_hidden_layers": _whole(1, 4 * _LAYERS),
    "num_layers": _whole(1, 4 * _LAYERS),
    "num_train_timesteps": _whole(1, 100_000, null=True),
    "num_vq_embeddings": _whole(1, 2**20),
    "out_channels": _whole(1, 1024),
    "patch_size": _whole(1, 1024),
    "prediction_type": _NAME,
    "projection_class_embeddings_input_dim": _whole(1, _CHANNELS, null=True),
    "projection_dim": _whole(1, _CHANNELS, null=True),
    "rescale_betas_zero_snr": _SWITCH,
    "sample_size": _whole(1, _SIDE, listed=True, null=True),
    "scaling_factor": _number(1e-6, 1e6),
    "set_alpha_to_one": _SWITCH,
    "steps_offset": _whole(0, 100_000),
    "timestep_spacing": _NAME,
    "transformer_layers_per_block": _whole(0, _LAYERS // 2, listed=True),
    "up_block_types": replace(_NAME, many=True),
    "upcast_attention": _SWITCH,
    "use_karras_sigmas": _SWITCH,
    "use_linear_projection": _SWITCH,
    "vocab_size": _whole(1, 2**24),
    "vq_embed_dim": _whole(1, 1024, null=True),
}


def load_part_config(path: str | PathLike[str]) -> dict[str, Any]:
    """Read the config.json of a part as `load_config` does, its values checked."""
    return dict(checked(load_config(path), what=str(path)))


def checked(config: object, *, what: str) -> Mapping[str, Any]:
    """Return `config`; raises `CheckpointError` for a value of the wrong type or beyond all sense.

    Names that no network of ours reads pass as they are. `what` names the file in errors.
    """
    if not isinstance(config, Mapping):
        raise CheckpointError(f"{what} is {_shown(config)}; it must be an object")
    for key, kind in _KINDS.items():
        if key in config and not kind.fits(config[key]):
            raise CheckpointError(f"{what}: {key} is {_shown(config[key])}; it must be {kind}")
    return config


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
