"""The config.json of diffusers' UNet2DModel, which hears no text <-> the fields of UNetConfig."""

from collections.abc import Mapping
from typing import Any

from sd_unet.errors import UNetConfigError

CLASS_NAME = "UNet2DModel"
"""The `_class_name` of its config.json."""

# Settings of UNet2DModel that this UNet does not have: only diffusers' default will do.
_FIXED: dict[str, Any] = {
    "act_fn": "silu",
    "add_attention": True,
    "attn_norm_num_groups": None,
    "center_input_sample": False,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "dropout": 0.0,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2D",
    "num_train_timesteps": None,
    "resnet_time_scale_shift": "default",
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "upsample_type": "conv",
}
# Names that are ours too, with diffusers' default for a config.json that leaves one out.
_SHARED: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "num_class_embeds": None,
    "class_embed_type": None,
}
_HEAD_WIDTH, _DEFAULT_HEAD_WIDTH = "attention_head_dim", 8
_DEFAULT_SAMPLE_SIZE = 64
_DOWN_TYPES = {True: "AttnDownBlock2D", False: "DownBlock2D"}
_UP_TYPES = {True: "AttnUpBlock2D", False: "UpBlock2D"}
_DEFAULT_LEVELS = (False, True, True, True)


def to_diffusers(fields: Mapping[str, Any], *, head_width: int) -> dict[str, Any]:
    """Return every setting of UNet2DModel, JSON-ready; its heads are of one width."""
    values: dict[str, Any] = {"_class_name": CLASS_NAME, **_FIXED, _HEAD_WIDTH: head_width}
    for name in _SHARED:
        value = fields[name]
        values[name] = list(value) if isinstance(value, tuple) else value
    levels = fields["attention_levels"]
    values["down_block_types"] = [_DOWN_TYPES[on] for on in levels]
    values["up_block_types"] = [_UP_TYPES[on] for on in reversed(levels)]
    return values


def from_diffusers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a config.json stands for; left-out settings are at their default.

    Raises ``UNetConfigError`` for a setting that would make another network than ours.
    """
    known = {*_SHARED, _HEAD_WIDTH, "down_block_types", "up_block_types"}
    for name, value in values.items():
        if name.startswith("_") or name in known or value == _FIXED.get(name):
            continue
        mend = f"only {_FIXED[name]!r} is" if name in _FIXED else "only a config without it is"
        raise _unsupported(name, value, mend)
    fields = {name: _setting(name, values.get(name, default)) for name, default in _SHARED.items()}
    fields["sample_size"] = fields["sample_size"] or _DEFAULT_SAMPLE_SIZE
    levels = _attention_levels(values)
    width = _head_width(values, fields["block_out_channels"], (*levels[:-1], True))
    heads = tuple(max(1, channels // width) for channels in fields["block_out_channels"])
    return {
        **fields,
        "cross_attention_dim": None,
        "num_heads": heads[0] if len(set(heads)) == 1 else heads,
        "attention_levels": levels,
    }


def _setting(name: str, value: Any) -> Any:
    if name == "block_out_channels" and isinstance(value, list | tuple):
        return tuple(value)
    if isinstance(value, list | tuple):
        raise _unsupported(name, value, "give one number")
    return value


def _head_width(
    values: Mapping[str, Any], channels: tuple[int, ...], has_attention: tuple[bool, ...]
) -> int:
    """Return how wide all heads are; the last level has the middle's, too."""
    width = values.get(_HEAD_WIDTH, _DEFAULT_HEAD_WIDTH)
    wide = [each for each, attends in zip(channels, has_attention, strict=False) if attends]
    if not isinstance(width, int) or width < 1 or any(each % width for each in wide):
        raise _unsupported(_HEAD_WIDTH, width, f"give one number that divides {wide}")
    return width


def _unsupported(name: str, value: object, mend: str) -> UNetConfigError:
    return UNetConfigError(f"{CLASS_NAME} setting {name} = {value!r:.60} is not supported: {mend}")


def _attention_levels(values: Mapping[str, Any]) -> tuple[bool, ...]:
    default = [_DOWN_TYPES[on] for on in _DEFAULT_LEVELS]
    down = list(values.get("down_block_types", default))
    for name in down:
        if name not in _DOWN_TYPES.values():
            known = " and ".join(_DOWN_TYPES.values())
            raise UNetConfigError(f"down block {name!r:.60} is not supported: only {known}")
    levels = tuple(name == _DOWN_TYPES[True] for name in down)
    mirrored = [_UP_TYPES[on] for on in reversed(levels)]
    if list(values.get("up_block_types", mirrored)) != mirrored:
        raise UNetConfigError(f"up blocks do not mirror the down blocks: they must be {mirrored}")
    return levels
