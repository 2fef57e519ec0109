"""The architecture of a UNet in the original layout (LDM), told from the shapes of its tensors."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count

from sd_unet.config import UNetConfig
from sd_unet.errors import UNetConfigError

_Shapes = Mapping[str, tuple[int, ...]]

# No shape shows the heads. SD 1.x has eight everywhere; SD 2.x and SDXL, which are also those with
# linear projections, have heads of one width.
_NUM_HEADS_SD1 = 8
_HEAD_WIDTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """One resolution on the way down; ``depth`` 0 says that it has no attention."""

    channels: int
    num_layers: int
    depth: int


def config_from_ldm(
    shapes: _Shapes,
    *,
    sample_size: int,
    num_heads: int | tuple[int, ...] | None = None,
    norm_num_groups: int = 32,
    addition_time_embed_dim: int = 256,
) -> UNetConfig:
    """Return the architecture of the shapes below ``model.diffusion_model.``.

    No shape shows the keyword arguments; left out, they are what all of SD 1.x, 2.x and SDXL have.
    Nor does one show ``upcast_attention``, which is False here and True in SD 2.x for 768 pixels.
    Raises ``UNetConfigError`` when the keys are of no UNet that can be built here.
    """
    in_channels = _shape(shapes, "input_blocks.0.0.weight")[1]
    levels = _levels(shapes)
    channels = tuple(level.channels for level in levels)
    linear = len(_shape(shapes, "middle_block.1.proj_in.weight")) == 2
    text = _shape(shapes, "middle_block.1.transformer_blocks.0.attn2.to_k.weight")
    label, classes = shapes.get("label_emb.0.0.weight"), shapes.get("label_emb.weight")
    return UNetConfig(
        sample_size=sample_size,
        in_channels=in_channels,
        out_channels=_shape(shapes, "out.2.weight")[0],
        block_out_channels=channels,
        attention_levels=tuple(level.depth > 0 for level in levels),
        layers_per_block=_the_one("layers a level", (level.num_layers for level in levels)),
        cross_attention_dim=text[1],
        num_heads=_num_heads(channels, linear) if num_heads is None else num_heads,
        transformer_layers=_transformer_layers(levels, _depth(shapes, "middle_block.1")),
        use_linear_projection=linear,
        norm_num_groups=norm_num_groups,
        addition_time_embed_dim=None if label is None else addition_time_embed_dim,
        projection_input_dim=None if label is None else label[1],
        num_class_embeds=None if classes is None else classes[0],
    )


def _levels(shapes: _Shapes) -> list[_Level]:
    """Read the way down: a level ends where the size is halved, and at the end."""
    levels: list[_Level] = []
    channels, depths = 0, list[int]()
    for index in count(1):
        block = f"input_blocks.{index}"
        if f"{block}.0.in_layers.2.weight" in shapes:
            channels = _shape(shapes, f"{block}.0.in_layers.2.weight")[0]
            depths.append(_depth(shapes, f"{block}.1"))
            continue
        depth = _the_one(f"transformer layers before {block}", depths)
        levels.append(_Level(channels=channels, num_layers=len(depths), depth=depth))
        depths = []
        if f"{block}.0.op.weight" not in shapes:
            break
    return levels


def _depth(shapes: _Shapes, transformer: str) -> int:
    blocks = (f"{transformer}.transformer_blocks.{number}.norm1.weight" for number in count())
    return next(number for number, block in enumerate(blocks) if block not in shapes)


def _transformer_layers(levels: list[_Level], mid_depth: int) -> int | tuple[int, ...]:
    """Return one number where all levels that have any agree, else one a level, unseen ones 1."""
    # The last level's number is the mid block's too.
    last = {mid_depth, levels[-1].depth or mid_depth}
    depths = [level.depth for level in levels[:-1]]
    depths.append(_the_one("transformer layers at the last level and in the mid block", last))
    seen = {depth for depth in depths if depth}
    return seen.pop() if len(seen) == 1 else tuple(depth or 1 for depth in depths)


def _num_heads(channels: tuple[int, ...], linear: bool) -> int | tuple[int, ...]:
    if not linear:
        return _NUM_HEADS_SD1
    if any(width % _HEAD_WIDTH for width in channels):
        raise UNetConfigError(
            f"channels {channels} are no multiples of the head width {_HEAD_WIDTH}: give num_heads"
        )
    return tuple(width // _HEAD_WIDTH for width in channels)


def _shape(shapes: _Shapes, key: str) -> tuple[int, ...]:
    shape = shapes.get(key)
    if shape is None or len(shape) < 2:
        what = "absent" if shape is None else f"of shape {shape}"
        raise UNetConfigError(
            f"these keys are of no UNet in LDM's layout, for {key} is {what}: "
            "give those below `model.diffusion_model.` of an SD 1.x, 2.x or SDXL file"
        )
    return shape


def _the_one(what: str, numbers: Iterable[int]) -> int:
    found = set(numbers)
    if len(found) != 1:
        raise UNetConfigError(
            f"a UNet whose {what} are {sorted(found)} cannot be built here: one number must do"
        )
    return found.pop()
