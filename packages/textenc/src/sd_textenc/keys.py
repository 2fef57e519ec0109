"""The names that a text encoder's weights have in a diffusers folder."""

from collections.abc import Callable, Mapping

from torch import Tensor

from sd_checkpoint import AnyRule, Fuse, KeyMap, Rule, beneath, only
from sd_textenc.config import CLIPTextConfig, OpenCLIPTextConfig

_QKV = ("q_proj", "k_proj", "v_proj")
_LAYER = (
    Fuse(tuple(f"self_attn.{name}.weight" for name in _QKV), "attn.in_proj_weight"),
    Fuse(tuple(f"self_attn.{name}.bias" for name in _QKV), "attn.in_proj_bias"),
    Rule("self_attn.out_proj.{}", "attn.out_proj.{}"),
    Rule("layer_norm1.{}", "ln_1.{}"),
    Rule("layer_norm2.{}", "ln_2.{}"),
    Rule("mlp.fc1.{}", "mlp.c_fc.{}"),
    Rule("mlp.fc2.{}", "mlp.c_proj.{}"),
)


def file_key_map(config: CLIPTextConfig) -> KeyMap:
    """Return the map from a folder's keys to those of the encoder's `model`.

    Files of SD, diffusers and transformers 4 say `text_model.encoder.layers.0...`;
    transformers 5 has dropped `text_model.` from CLIPTextModel (it still opens such files, but
    writes them without), and keeps it in CLIPTextModelWithProjection. Both forms are read, and
    the inverse gives the first, which every version opens.
    """
    if isinstance(config, OpenCLIPTextConfig):
        projection = Rule("text_projection.weight", "text_projection", ("p d", "d p"))
        return KeyMap([projection, *open_clip_rules("text_model."), *open_clip_rules("")])
    return transformers_key_map(config)


def transformers_key_map(config: CLIPTextConfig) -> KeyMap:
    """Return the map from a folder's keys to those of transformers' modules."""
    if config.projection_dim is None:
        return KeyMap([Rule("text_model.{*}", "{*}"), Rule("{*}", "{*}")])
    return KeyMap(
        [
            Rule("text_model.{*}", "text_model.{*}"),
            Rule("text_projection.{}", "text_projection.{}"),
        ]
    )


def open_clip_rules(source: str, target: str = "") -> tuple[AnyRule, ...]:
    """Pair transformers' names behind the prefix `source` with open_clip's behind `target`.

    The projection, which stands outside either prefix, is not among them.
    """
    return (
        *beneath(f"{source}encoder.layers.{{}}", f"{target}transformer.resblocks.{{}}", _LAYER),
        Rule(f"{source}embeddings.token_embedding.weight", f"{target}token_embedding.weight"),
        Rule(f"{source}embeddings.position_embedding.weight", f"{target}positional_embedding"),
        Rule(f"{source}final_layer_norm.{{}}", f"{target}ln_final.{{}}"),
    )


def is_no_weight(name: str) -> bool:
    """Tell the counted positions, which old files carry, from weights."""
    return name.endswith("embeddings.position_ids")


def without(tensors: Mapping[str, Tensor], left_out: Callable[[str], bool]) -> Mapping[str, Tensor]:
    """View tensors without those that `left_out` says yes to, reading none."""
    return only(tensors, (name for name in tensors if not left_out(name)))
