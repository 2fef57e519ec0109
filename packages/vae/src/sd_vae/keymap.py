"""The autoencoder's keys in LDM's own layout, and in diffusers' folders old and new."""

from sd_checkpoint import AnyRule, KeyMap, Rule, beneath
from sd_vae.config import VAEConfig, sd15

__all__ = ["folder_key_map", "ldm_key_map"]

_RESNET = (
    Rule("nin_shortcut.{}", "conv_shortcut.{}"),
    Rule("{}.{}", "{}.{}"),
)


def _attention() -> tuple[AnyRule, ...]:
    rules = [Rule("norm.{}", "group_norm.{}")]
    for theirs, ours in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
        rules += [
            # LDM attends with 1x1 convolutions, we with linears.
            Rule(f"{theirs}.weight", f"{ours}.weight", ("c_out c_in 1 1", "c_out c_in")),
            Rule(f"{theirs}.bias", f"{ours}.bias"),
        ]
    return tuple(rules)


_MID = (
    *beneath("mid.block_1", "mid_block.resnets.0", _RESNET),
    *beneath("mid.attn_1", "mid_block.attentions.0", _attention()),
    *beneath("mid.block_2", "mid_block.resnets.1", _RESNET),
)
_ENDS = (
    Rule("conv_in.{}", "conv_in.{}"),
    Rule("norm_out.{}", "conv_norm_out.{}"),
    Rule("conv_out.{}", "conv_out.{}"),
)


def ldm_key_map(config: VAEConfig | None = None) -> KeyMap:
    """Map LDM's names, below `first_stage_model.`, to ours; the config is `sd15()` unless given.

    LDM counts the decoder's blocks by resolution, coarse last, so its `decoder.up.3` runs first.
    """
    num_blocks = len((config or sd15()).block_out_channels)
    rules: list[AnyRule] = [
        *beneath("encoder", "encoder", (*_MID, *_ENDS)),
        *beneath("decoder", "decoder", (*_MID, *_ENDS)),
        *beneath("encoder.down.{}.block.{}", "encoder.down_blocks.{}.resnets.{}", _RESNET),
        Rule("encoder.down.{}.downsample.conv.{}", "encoder.down_blocks.{}.downsamplers.0.conv.{}"),
    ]
    for ours in range(num_blocks):
        theirs = f"decoder.up.{num_blocks - 1 - ours}"
        block = f"decoder.up_blocks.{ours}"
        rules += beneath(f"{theirs}.block.{{}}", f"{block}.resnets.{{}}", _RESNET)
        rules.append(Rule(f"{theirs}.upsample.conv.{{}}", f"{block}.upsamplers.0.conv.{{}}"))
    rules += [
        Rule("quant_conv.{}", "quant_conv.{}"),
        Rule("post_quant_conv.{}", "post_quant_conv.{}"),
    ]
    return KeyMap(rules)


def folder_key_map() -> KeyMap:
    """Map the names in a diffusers folder to ours, which are diffusers' since 0.15.

    Folders older than that call the attention's linears otherwise; both spellings are read, and
    `inverse()` gives the newer one.
    """
    linears = (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0"))
    # Of two rules with one target the first is the one that is read backwards.
    attention = [Rule(f"{new}.{{}}", f"{new}.{{}}") for _, new in linears]
    attention += [Rule(f"{old}.{{}}", f"{new}.{{}}") for old, new in linears]
    rules: list[AnyRule] = []
    for part in ("encoder", "decoder"):
        layer = f"{part}.mid_block.attentions.0"
        rules += beneath(layer, layer, attention)
    return KeyMap((*rules, Rule("{*}", "{*}")))
