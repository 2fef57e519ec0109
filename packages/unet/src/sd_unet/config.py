"""What a UNet looks like, and the presets."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from sd_unet import diffusers_plain_config
from sd_unet.diffusers_config import from_diffusers, to_diffusers
from sd_unet.errors import UNetConfigError, UNetInputError

_CLASS_TYPES = ("timestep", "identity")
# What the transformers that hear a text have alone, at the values that say that there is none.
_TEXTLESS: Mapping[str, Any] = {
    "transformer_layers": 1,
    "use_linear_projection": False,
    "upcast_attention": False,
    "projection_input_dim": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """The spatial transformer of one level."""

    channels: int
    num_heads: int
    num_layers: int
    cross_attention_dim: int | None
    use_linear_projection: bool
    upcast_attention: bool
    norm_num_groups: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig:
    """The architecture; the defaults are Stable Diffusion 1.x (Rombach et al., arXiv:2112.10752).

    A level is one resolution, the finest first. ``num_heads`` and ``transformer_layers`` are one
    number for all levels or one number a level. A network with ``projection_input_dim`` is also
    told a pooled text and sizes: that is the width of both side by side, each size being
    ``addition_time_embed_dim`` wide.

    Without ``cross_attention_dim`` it hears no text, and is diffusers' UNet2DModel: the pixels of a
    level attend to one another alone, with heads of one width. With ``num_class_embeds`` it is told
    classes by number, of which the last is by convention that of no class; ``class_embed_type``
    "timestep" embeds numbers as it does the time, "identity" takes vectors as wide as the time's
    embedding. Raises ``UNetConfigError`` for numbers that do not fit together.
    """

    sample_size: int = 64
    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    layers_per_block: int = 2
    cross_attention_dim: int | None = 768
    num_heads: int | tuple[int, ...] = 8
    transformer_layers: int | tuple[int, ...] = 1
    use_linear_projection: bool = False
    upcast_attention: bool = False
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    addition_time_embed_dim: int | None = None
    projection_input_dim: int | None = None
    num_class_embeds: int | None = None
    class_embed_type: str | None = None

    def __post_init__(self) -> None:
        num_levels = self.num_levels
        for name in ("attention_levels", "num_heads", "transformer_layers"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != num_levels:
                raise UNetConfigError(
                    f"{name} {value} has {len(value)} entries for {num_levels} levels: "
                    "give one a level of block_out_channels"
                )
        for level, channels in enumerate(self.block_out_channels):
            self._check_divides("norm_num_groups", self.norm_num_groups, channels)
            if self.has_attention(level):
                self._check_divides("num_heads", per_level(self.num_heads, level), channels)
                self._check_layers(level)
        if (self.addition_time_embed_dim is None) != (self.projection_input_dim is None):
            raise UNetConfigError(
                f"addition_time_embed_dim {self.addition_time_embed_dim} and projection_input_dim "
                f"{self.projection_input_dim} go together: give both or neither"
            )
        self._check_classes()
        if not self.takes_text:
            self._check_textless()

    def _check_classes(self) -> None:
        if self.class_embed_type not in (None, *_CLASS_TYPES):
            raise UNetConfigError(
                f"class_embed_type {self.class_embed_type!r:.60} is not supported: "
                f"only {', '.join(_CLASS_TYPES)} and None are"
            )
        number = self.num_class_embeds
        if number is None:
            return
        if self.class_embed_type is not None:
            raise UNetConfigError(
                f"num_class_embeds {number} means nothing beside class_embed_type "
                f"{self.class_embed_type!r}: give one of them"
            )
        if number < 1:
            raise UNetConfigError(f"num_class_embeds {number}: give 1 or more, or leave it out")

    def _check_textless(self) -> None:
        """Refuse what only a text's transformers have, and heads that diffusers has not."""
        for name, plain in _TEXTLESS.items():
            if getattr(self, name) != plain:
                raise UNetConfigError(
                    f"{name} {getattr(self, name)!r:.60} wants a text, and cross_attention_dim is "
                    f"None: leave {name} at {plain!r}"
                )
        widths = {level: self.head_width(level) for level in self.levels_with_attention}
        if len(set(widths.values())) > 1:
            raise UNetConfigError(
                f"num_heads {self.num_heads} makes heads of {sorted(set(widths.values()))} "
                "channels, and without a text all are of one width: give numbers in proportion "
                f"to the channels {self.block_out_channels}"
            )

    def _check_layers(self, level: int) -> None:
        number = per_level(self.transformer_layers, level)
        if number < 1:
            raise UNetConfigError(
                f"transformer_layers {number} at level {level}, which has attention: give 1 or more"
            )

    @staticmethod
    def _check_divides(name: str, number: int, channels: int) -> None:
        if number < 1 or channels % number:
            raise UNetConfigError(
                f"{name} {number} does not divide {channels} channels: choose a divisor"
            )

    @property
    def num_levels(self) -> int:
        """The number of resolutions."""
        return len(self.block_out_channels)

    @property
    def takes_sizes(self) -> bool:
        """Whether the network wants pooled text and sizes, as SDXL's do."""
        return self.projection_input_dim is not None

    @property
    def takes_text(self) -> bool:
        """Whether the network hears a text."""
        return self.cross_attention_dim is not None

    @property
    def takes_classes(self) -> bool:
        """Whether the network is told classes."""
        return self.num_class_embeds is not None or self.class_embed_type is not None

    @property
    def levels_with_attention(self) -> tuple[int, ...]:
        """The levels at which there is attention."""
        return tuple(level for level in range(self.num_levels) if self.has_attention(level))

    def head_width(self, level: int) -> int:
        """Return how many channels of a level are one head's."""
        return self.block_out_channels[level] // per_level(self.num_heads, level)

    def without_text(self) -> "UNetConfig":
        """Return it as a network that hears no text: all heads as wide as the finest level's."""
        width = self.head_width(0)
        heads = tuple(max(1, channels // width) for channels in self.block_out_channels)
        plain = {**_TEXTLESS, "addition_time_embed_dim": None}
        return replace(self, cross_attention_dim=None, num_heads=heads, **plain)

    @property
    def time_embed_dim(self) -> int:
        """The width of the timestep's embedding."""
        return 4 * self.block_out_channels[0]

    def has_attention(self, level: int) -> bool:
        """Tell whether any transformer stands at a level; the mid block's is at the last."""
        return self.attention_levels[level] or level == self.num_levels - 1

    def transformer(self, level: int) -> TransformerConfig:
        """Return the spatial transformer of a level."""
        return TransformerConfig(
            channels=self.block_out_channels[level],
            num_heads=per_level(self.num_heads, level),
            num_layers=per_level(self.transformer_layers, level),
            cross_attention_dim=self.cross_attention_dim,
            use_linear_projection=self.use_linear_projection,
            upcast_attention=self.upcast_attention,
            norm_num_groups=self.norm_num_groups,
        )

    def num_sizes(self, pooled_dim: int) -> int:
        """Return how many sizes go with a pooled text of this width: SDXL 6, its refiner 5.

        Raises ``UNetInputError`` when no number of sizes fills the rest.
        """
        total, each = self.projection_input_dim, self.addition_time_embed_dim
        if total is None or each is None:
            raise UNetInputError("this UNet takes no pooled text and no sizes")
        if total < pooled_dim or (total - pooled_dim) % each:
            raise UNetInputError(
                f"a pooled text of width {pooled_dim} leaves no whole number of sizes of {each} "
                f"each in {total}: it is of another text encoder"
            )
        return (total - pooled_dim) // each

    def to_diffusers(self) -> dict[str, Any]:
        """Return the config.json with which diffusers has this network.

        It is that of a UNet2DConditionModel, or, of a network that hears no text, a UNet2DModel.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.takes_text:
            return to_diffusers(values)
        width = self.head_width(self.num_levels - 1)
        return diffusers_plain_config.to_diffusers(values, head_width=width)

    @staticmethod
    def from_diffusers(values: Mapping[str, Any]) -> "UNetConfig":
        """Read the config.json of a UNet2DConditionModel or a UNet2DModel.

        Raises ``UNetConfigError`` for a setting that this UNet does not have.
        """
        if values.get("_class_name") == diffusers_plain_config.CLASS_NAME:
            return UNetConfig(**diffusers_plain_config.from_diffusers(values))
        return UNetConfig(**from_diffusers(values))


def per_level(value: int | tuple[int, ...], level: int) -> int:
    """Return a level's entry of a number that may be one for all."""
    return value[level] if isinstance(value, tuple) else value


def sd15() -> UNetConfig:
    """Return Stable Diffusion 1.x: 859.52 M parameters."""
    return UNetConfig()


def sd21() -> UNetConfig:
    """Return Stable Diffusion 2.1 for 768 pixels, which predicts v: 865.91 M parameters.

    Its relatives of 2.x differ in what has no weights: ``sample_size`` is 64 in those for 512
    pixels, and ``upcast_attention`` False in some.
    """
    return UNetConfig(
        sample_size=96,
        cross_attention_dim=1024,
        num_heads=(5, 10, 20, 20),
        use_linear_projection=True,
        upcast_attention=True,
    )


def sdxl() -> UNetConfig:
    """Return SDXL's base network (Podell et al., arXiv:2307.01952): 2,567.46 M parameters."""
    return UNetConfig(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        attention_levels=(False, True, True),
        cross_attention_dim=2048,
        num_heads=(5, 10, 20),
        transformer_layers=(1, 2, 10),
        use_linear_projection=True,
        addition_time_embed_dim=256,
        projection_input_dim=2816,
    )


def sdxl_refiner() -> UNetConfig:
    """Return SDXL's refiner, which reads OpenCLIP's text alone: 2,259.53 M parameters."""
    return UNetConfig(
        sample_size=128,
        block_out_channels=(384, 768, 1536, 1536),
        attention_levels=(False, True, True, False),
        cross_attention_dim=1280,
        num_heads=(6, 12, 24, 24),
        transformer_layers=4,
        use_linear_projection=True,
        addition_time_embed_dim=256,
        projection_input_dim=2560,
    )


def scenes() -> UNetConfig:
    """Return the embedded model's UNet, for latents of 8 x 16 x 16: 15.09 M parameters."""
    return UNetConfig(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        block_out_channels=(128, 192, 192),
        attention_levels=(True, True, False),
        layers_per_block=1,
        cross_attention_dim=256,
        num_heads=4,
    )
