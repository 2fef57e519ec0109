"""What a diffusion transformer looks like, and the presets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from sd_unet.config import TransformerConfig
from sd_unet.errors import UNetConfigError, UNetInputError

DIT_CLASS = "DiT"
"""The `_class_name` of its config.json, which tells it from a UNet's."""

Conditioning = Literal["cross", "adaln"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTConfig:
    """The architecture; the defaults are DiT-XL/2 (Peebles and Xie, arXiv:2212.09748, table 1).

    ``conditioning`` is how the text is heard: "cross" by cross-attention in every block, "adaln"
    as the mean of its states added to the time's embedding, which is how the paper tells a class;
    the fitting choice where captions are labels. Without ``cross_attention_dim`` no text is heard.
    ``num_class_embeds`` classes are told by number, as in the paper: a table's row is added to the
    time's embedding, by convention the last one for no class. ``long_skips`` joins the first half's
    blocks to the second half's (U-ViT, Bao et al., arXiv:2209.12152). Raises ``UNetConfigError``
    for numbers that do not fit together.
    """

    sample_size: int = 32
    in_channels: int = 4
    out_channels: int = 4
    patch_size: int = 2
    channels: int = 1152
    num_layers: int = 28
    num_heads: int = 16
    cross_attention_dim: int | None = 768
    conditioning: Conditioning = "cross"
    long_skips: bool = False
    upcast_attention: bool = False
    num_class_embeds: int | None = None

    def __post_init__(self) -> None:
        for name in ("sample_size", "in_channels", "out_channels", "patch_size", "num_layers"):
            if getattr(self, name) < 1:
                raise UNetConfigError(f"{name} {getattr(self, name)}: give 1 or more")
        if self.num_heads < 1 or self.channels % self.num_heads:
            raise UNetConfigError(
                f"num_heads {self.num_heads} does not divide {self.channels} channels: "
                "choose a divisor"
            )
        if self.channels % 4:
            raise UNetConfigError(
                f"channels {self.channels} must be a multiple of 4: a quarter each are the sines "
                "and cosines of column and row"
            )
        if self.conditioning not in get_args(Conditioning):
            raise UNetConfigError(
                f"conditioning {self.conditioning!r} is unknown: choose of "
                f"{', '.join(get_args(Conditioning))}"
            )

        if self.num_class_embeds is not None and self.num_class_embeds < 1:
            raise UNetConfigError(
                f"num_class_embeds {self.num_class_embeds}: give 1 or more, or leave it out"
            )

    @property
    def takes_text(self) -> bool:
        """Whether the network hears a text."""
        return self.cross_attention_dim is not None

    @property
    def takes_classes(self) -> bool:
        """Whether the network is told classes."""
        return self.num_class_embeds is not None

    @property
    def takes_sizes(self) -> bool:
        """Whether the network wants pooled text and sizes, as SDXL's do: never."""
        return False

    def num_sizes(self, pooled_dim: int) -> int:
        """Raise ``UNetInputError``: no number of sizes goes with a pooled text of any width."""
        raise UNetInputError(f"a DiT takes no pooled text, of width {pooled_dim}, and no sizes")

    @property
    def transformer(self) -> TransformerConfig:
        """Return what its attention layers are made by."""
        return TransformerConfig(
            channels=self.channels,
            num_heads=self.num_heads,
            num_layers=self.num_layers,
            cross_attention_dim=self.cross_attention_dim,
            use_linear_projection=True,
            upcast_attention=self.upcast_attention,
            norm_num_groups=1,
        )

    def to_diffusers(self) -> dict[str, Any]:
        """Return its config.json: the fields, under a class name that is ours."""
        values = {"_class_name": DIT_CLASS, **asdict(self)}
        if self.num_class_embeds is None:  # as in older files
            del values["num_class_embeds"]
        return values

    @staticmethod
    def from_diffusers(values: Mapping[str, Any]) -> "DiTConfig":
        """Read that config.json; raises ``UNetConfigError`` for a setting that is not ours."""
        known = {field.name for field in fields(DiTConfig)}
        settings = {name: value for name, value in values.items() if not name.startswith("_")}
        for name in settings:
            if name not in known:
                raise UNetConfigError(f"DiT setting {name} is unknown: leave it out")
            if name in _OPTIONAL and settings[name] is None:
                continue
            if type(settings[name]) is not type(_EXAMPLES.get(name, getattr(_DEFAULT, name))):
                raise UNetConfigError(
                    f"DiT setting {name} = {settings[name]!r:.60} is of the wrong type: give one "
                    f"such as {_EXAMPLES.get(name, getattr(_DEFAULT, name))!r}"
                )
        return DiTConfig(**settings)


_DEFAULT = DiTConfig()
_OPTIONAL = ("cross_attention_dim", "num_class_embeds")
_EXAMPLES = {"num_class_embeds": 1001}


def dit_xl_2() -> DiTConfig:
    """Return DiT-XL/2 with cross-attention, for SD 1.x latents of 32 x 32: 946.23 M parameters."""
    return DiTConfig()


def dit_scenes() -> DiTConfig:
    """Return one for the embedded model's latents, 8 x 16 x 16: 15.65 M parameters."""
    return DiTConfig(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        channels=256,
        num_layers=9,
        num_heads=4,
        cross_attention_dim=256,
    )
