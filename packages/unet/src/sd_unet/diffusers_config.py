"""The config.json of diffusers' UNet2DConditionModel <-> the fields of UNetConfig."""

from collections.abc import Mapping
from typing import Any

from sd_unet.errors import UNetConfigError

# Settings of UNet2DConditionModel that this UNet does not have: only diffusers' default will do.
_FIXED: dict[str, Any] = {
    "act_fn": "silu",
    "addition_embed_type_num_heads": 64,
    "attention_type": "default",
    "center_input_sample": False,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dropout": 0.0,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_attention_heads": None,
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
}

# Our name -> diffusers', with diffusers' default for a config.json that leaves it out.
_SHARED: dict[str, tuple[str, Any]] = {
    "sample_size": ("sample_size", 64),
    "in_channels": ("in_channels", 4),
    "out_channels": ("out_channels", 4),
    "block_out_channels": ("block_out_channels", (320, 640, 1280, 1280)),
    "layers_per_block": ("layers_per_block", 2),
    "cross_attention_dim": ("cross_attention_dim", 1280),
    # diffusers' `attention_head_dim` is the number of heads; the name is wrong for all its UNets,
    # and giving it under the right one, `num_attention_heads`, is refused there.
    "num_heads": ("attention_head_dim", 8),
    "transformer_layers": ("transformer_layers_per_block", 1),
    "use_linear_projection": ("use_linear_projection", False),
    "upcast_attention": ("upcast_attention", False),
    "norm_num_groups": ("norm_num_groups", 32),
    "norm_eps": ("norm_eps", 1e-5),
    "addition_time_embed_dim": ("addition_time_embed_dim", None),
    "projection_input_dim": ("projection_class_embeddings_input_dim", None),
    "num_class_embeds": ("num_class_embeds", None),
    "class_embed_type": ("class_embed_type", None),
}
_ADDITION = ("addition_time_embed_dim", "projection_input_dim")
_ADDITION_TYPE = "text_time"

# What diffusers writes beside a network that is a running average: how it was averaged.
_AVERAGING = (
    "decay",
    "inv_gamma",
    "min_decay",
    "optimization_step",
    "power",
    "update_after_step",
    "use_ema_warmup",
)

_DOWN_TYPES = {True: "CrossAttnDownBlock2D", False: "DownBlock2D"}
_UP_TYPES = {True: "CrossAttnUpBlock2D", False: "UpBlock2D"}
_DEFAULT_LEVELS = (True, True, True, False)
_ONE_FOR_ALL = ("sample_size", "layers_per_block", "cross_attention_dim")
_SWITCHES = ("use_linear_projection", "upcast_attention")


def to_diffusers(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return every setting of UNet2DConditionModel, JSON-ready."""
    values: dict[str, Any] = {"_class_name": "UNet2DConditionModel", **_FIXED}
    for ours, (theirs, _) in _SHARED.items():
        value = fields[ours]
        values[theirs] = list(value) if isinstance(value, tuple) else value
    added = fields["projection_input_dim"] is not None
    values["addition_embed_type"] = _ADDITION_TYPE if added else None
    values["down_block_types"] = [_DOWN_TYPES[on] for on in fields["attention_levels"]]
    values["up_block_types"] = [_UP_TYPES[on] for on in reversed(fields["attention_levels"])]
    return values


def from_diffusers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a config.json stands for; left-out settings are at their default."""
    class_name = values.get("_class_name", "UNet2DConditionModel")
    if class_name != "UNet2DConditionModel":
        raise UNetConfigError(f"config.json is of {class_name}: give one of UNet2DConditionModel")
    _check_others(values)
    fields = {
        ours: _setting(theirs, values.get(theirs, default))
        for ours, (theirs, default) in _SHARED.items()
    }
    if fields["sample_size"] is None:
        fields["sample_size"] = 64
    if fields["cross_attention_dim"] is None:
        raise UNetConfigError(
            f"UNet setting cross_attention_dim = None is not supported: a {class_name} hears text"
        )
    _settle_addition(values.get("addition_embed_type"), fields)
    return {**fields, "attention_levels": _attention_levels(values)}


def _check_others(values: Mapping[str, Any]) -> None:
    """Refuse every setting that would make another network than ours."""
    known = {theirs for theirs, _ in _SHARED.values()} | set(_AVERAGING)
    known |= {"addition_embed_type", "down_block_types", "up_block_types"}
    for name, value in values.items():
        if name.startswith("_") or name in known or value == _FIXED.get(name):
            continue
        # A setting newer than this table is harmless while it is off.
        if name not in _FIXED and value is False:
            continue
        raise UNetConfigError(
            f"UNet setting {name} = {value!r:.60} is not supported: {_mend(name)}"
        )


def _settle_addition(kind: str | None, fields: dict[str, Any]) -> None:
    """Require what SDXL's conditions need, or drop what means nothing without them."""
    if kind is None:
        fields.update(dict.fromkeys(_ADDITION))
    elif kind != _ADDITION_TYPE:
        raise UNetConfigError(
            f"UNet setting addition_embed_type = {kind!r:.60} is not supported: "
            f"only {_ADDITION_TYPE!r} and None are"
        )
    elif None in (fields[name] for name in _ADDITION):
        theirs = " and ".join(_SHARED[name][0] for name in _ADDITION)
        raise UNetConfigError(f"UNet setting addition_embed_type = {kind!r} wants {theirs} too")


def _mend(name: str) -> str:
    return f"only {_FIXED[name]!r} is" if name in _FIXED else "only a config without it is"


def _setting(name: str, value: Any) -> Any:
    """Turn JSON's lists into tuples, and a list of equal numbers into the one we keep."""
    if name in _SWITCHES:
        return bool(value)  # SDXL's config.json says null for off
    if not isinstance(value, list | tuple):
        return value
    if any(isinstance(entry, list | tuple) for entry in value):
        raise UNetConfigError(
            f"UNet setting {name} = {value!r:.60} is not supported: give one number a level"
        )
    if name not in _ONE_FOR_ALL:
        return tuple(value)
    if len(set(value)) != 1:
        raise UNetConfigError(
            f"UNet setting {name} = {value!r:.60} is not supported: make all equal"
        )
    return value[0]


def _attention_levels(values: Mapping[str, Any]) -> tuple[bool, ...]:
    default_down = [_DOWN_TYPES[on] for on in _DEFAULT_LEVELS]
    default_up = [_UP_TYPES[on] for on in reversed(_DEFAULT_LEVELS)]
    down = list(values.get("down_block_types", default_down))
    up = list(values.get("up_block_types", default_up))
    for name in down:
        if name not in _DOWN_TYPES.values():
            raise UNetConfigError(
                f"down block {name!r:.60} is not supported: "
                f"only {' and '.join(_DOWN_TYPES.values())}"
            )
    levels = tuple(name == _DOWN_TYPES[True] for name in down)
    mirrored = [_UP_TYPES[on] for on in reversed(levels)]
    if up != mirrored:
        raise UNetConfigError(
            f"up blocks {up} do not mirror the down blocks: they must be {mirrored}"
        )
    return levels
