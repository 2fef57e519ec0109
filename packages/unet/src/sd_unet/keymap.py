"""The key names of the original latent-diffusion layout (LDM) <-> ours."""

from sd_checkpoint import AnyRule, KeyMap, Rule, beneath
from sd_unet.backbones import BackboneConfig
from sd_unet.config import UNetConfig, sd15
from sd_unet.dit_config import DiTConfig

_RESNET = (
    Rule("in_layers.0.{}", "norm1.{}"),
    Rule("in_layers.2.{}", "conv1.{}"),
    Rule("emb_layers.1.{}", "time_emb_proj.{}"),
    Rule("out_layers.0.{}", "norm2.{}"),
    Rule("out_layers.3.{}", "conv2.{}"),
    Rule("skip_connection.{}", "conv_shortcut.{}"),
)
_TRANSFORMER = (Rule("{*}", "{*}"),)
_ENDS = (
    Rule("time_embed.0.{}", "time_embedding.linear_1.{}"),
    Rule("time_embed.2.{}", "time_embedding.linear_2.{}"),
    Rule("input_blocks.0.0.{}", "conv_in.{}"),
    Rule("out.0.{}", "conv_norm_out.{}"),
    Rule("out.2.{}", "conv_out.{}"),
)
# SDXL's: LDM calls the conditions a label.
_ADDITION = (
    Rule("label_emb.0.0.{}", "add_embedding.linear_1.{}"),
    Rule("label_emb.0.2.{}", "add_embedding.linear_2.{}"),
)
# Of networks that are told classes.
_CLASSES = (Rule("label_emb.weight", "class_embedding.weight"),)


def ldm_key_map(config: BackboneConfig | None = None) -> KeyMap:
    """Return the map from LDM's names, below ``model.diffusion_model.``, to ours.

    LDM numbers its blocks straight through, so the map depends on the architecture: SD 1.x, 2.x
    and their variants of more input channels share the default one. LDM has no DiT and,
    of those here, no UNet that hears no text: ours keep their names there.
    """
    config = config or sd15()
    if isinstance(config, DiTConfig) or not config.takes_text:
        return KeyMap((Rule("{*}", "{*}"),))
    addition = () if config.projection_input_dim is None else _ADDITION
    classes = () if config.num_class_embeds is None else _CLASSES
    return KeyMap((*_ENDS, *addition, *classes, *_down(config), *_middle(), *_up(config)))


def _down(config: UNetConfig) -> list[AnyRule]:
    rules: list[AnyRule] = []
    index = 1
    for level in range(config.num_levels):
        for layer in range(config.layers_per_block):
            ours = f"down_blocks.{level}"
            rules += beneath(f"input_blocks.{index}.0", f"{ours}.resnets.{layer}", _RESNET)
            if config.attention_levels[level]:
                rules += beneath(
                    f"input_blocks.{index}.1", f"{ours}.attentions.{layer}", _TRANSFORMER
                )
            index += 1
        if level < config.num_levels - 1:
            rules.append(
                Rule(f"input_blocks.{index}.0.op.{{}}", f"{ours}.downsamplers.0.conv.{{}}")
            )
            index += 1
    return rules


def _middle() -> tuple[AnyRule, ...]:
    return (
        *beneath("middle_block.0", "mid_block.resnets.0", _RESNET),
        *beneath("middle_block.1", "mid_block.attentions.0", _TRANSFORMER),
        *beneath("middle_block.2", "mid_block.resnets.1", _RESNET),
    )


def _up(config: UNetConfig) -> list[AnyRule]:
    rules: list[AnyRule] = []
    num_layers = config.layers_per_block + 1
    for block, level in enumerate(reversed(range(config.num_levels))):
        ours = f"up_blocks.{block}"
        has_attention = config.attention_levels[level]
        for layer in range(num_layers):
            theirs = f"output_blocks.{block * num_layers + layer}"
            rules += beneath(f"{theirs}.0", f"{ours}.resnets.{layer}", _RESNET)
            if has_attention:
                rules += beneath(f"{theirs}.1", f"{ours}.attentions.{layer}", _TRANSFORMER)
        if level > 0:
            # In LDM the step up is the last part of the level's last layer.
            part = 2 if has_attention else 1
            rules.append(Rule(f"{theirs}.{part}.conv.{{}}", f"{ours}.upsamplers.0.conv.{{}}"))
    return rules
