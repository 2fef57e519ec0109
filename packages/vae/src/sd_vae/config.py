"""The autoencoder's architecture as data, its presets, and diffusers' config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["VAEConfig", "VAEError", "scenes", "sd15", "sd21", "sdxl"]


class VAEError(ValueError):
    """Say in one line which value the autoencoder cannot take, and what it can."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VAEConfig:
    """Say the architecture of an autoencoder; `sample_size` is the picture's side in training.

    `scaling_factor` times a latent has about unit variance. `force_upcast` says that the weights
    overflow float16, so that whoever holds them in it has to decode in float32. Raises `VAEError`
    when the groups of the norms do not divide every width.
    """

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    sample_size: int = 512
    mid_block_add_attention: bool = True
    force_upcast: bool = False

    def __post_init__(self) -> None:
        if not self.block_out_channels:
            raise VAEError("block_out_channels is empty; give at least one width")
        for width in self.block_out_channels:
            if width % self.norm_num_groups:
                raise VAEError(
                    f"block width {width} is not a multiple of norm_num_groups "
                    f"{self.norm_num_groups}; choose widths that are"
                )

    @property
    def downsampling(self) -> int:
        """Picture pixels per latent pixel along one side (f)."""
        return 1 << (len(self.block_out_channels) - 1)

    def check_size(self, height: int, width: int) -> None:
        """Raise `VAEError` when a picture's side is not a multiple of f."""
        factor = self.downsampling
        if height % factor or width % factor:
            raise VAEError(
                f"a picture of {width}x{height} cannot be encoded; "
                f"both sides must be multiples of {factor}"
            )

    def to_diffusers(self) -> dict[str, Any]:
        """Return the whole config.json of diffusers' AutoencoderKL."""
        num_blocks = len(self.block_out_channels)
        return {
            "_class_name": "AutoencoderKL",
            "_diffusers_version": "0.36.0",
            "act_fn": "silu",
            "block_out_channels": list(self.block_out_channels),
            "down_block_types": ["DownEncoderBlock2D"] * num_blocks,
            "force_upcast": self.force_upcast,
            "in_channels": self.in_channels,
            "latent_channels": self.latent_channels,
            "latents_mean": None,
            "latents_std": None,
            "layers_per_block": self.layers_per_block,
            "mid_block_add_attention": self.mid_block_add_attention,
            "norm_num_groups": self.norm_num_groups,
            "out_channels": self.out_channels,
            "sample_size": self.sample_size,
            "scaling_factor": self.scaling_factor,
            "shift_factor": None,
            "up_block_types": ["UpDecoderBlock2D"] * num_blocks,
            "use_post_quant_conv": True,
            "use_quant_conv": True,
        }

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> "VAEConfig":
        """Read diffusers' config.json; raises `VAEError` where it asks for what is not here.

        A field that the file leaves out has diffusers' own default, but for `force_upcast`: files
        without it are older than it and of autoencoders that do not overflow.
        """
        if config.get("_class_name", "AutoencoderKL") != "AutoencoderKL":
            raise VAEError(f"this config is of a {config['_class_name']}, not an AutoencoderKL")
        widths = tuple(config.get("block_out_channels", (64,)))
        _require_supported(config, len(widths))
        return cls(
            in_channels=config.get("in_channels", 3),
            out_channels=config.get("out_channels", 3),
            latent_channels=config.get("latent_channels", 4),
            block_out_channels=widths,
            layers_per_block=_one_for_all(config, "layers_per_block", 1),
            norm_num_groups=config.get("norm_num_groups", 32),
            scaling_factor=config.get("scaling_factor", 0.18215),
            sample_size=_one_for_all(config, "sample_size", 32),
            mid_block_add_attention=config.get("mid_block_add_attention", True),
            force_upcast=config.get("force_upcast", False),
        )


def _one_for_all(config: Mapping[str, Any], name: str, default: int) -> int:
    value = config.get(name, default)
    if not isinstance(value, int):
        raise VAEError(f"this autoencoder has {name} {value!r:.60}; only one number is built here")
    return value


def _require_supported(config: Mapping[str, Any], num_blocks: int) -> None:
    supported: dict[str, Any] = {
        "act_fn": "silu",
        "down_block_types": ["DownEncoderBlock2D"] * num_blocks,
        "up_block_types": ["UpDecoderBlock2D"] * num_blocks,
        "use_quant_conv": True,
        "use_post_quant_conv": True,
        "shift_factor": None,
        "latents_mean": None,
        "latents_std": None,
    }
    for name, only in supported.items():
        value = config.get(name, only)
        if (list(value) if isinstance(value, tuple) else value) != only:
            raise VAEError(
                f"this autoencoder has {name} {value!r:.60}; only {only!r} is built here"
            )


def sd15() -> VAEConfig:
    """Return Stable Diffusion 1.x's autoencoder: f = 8, 4 channels, 83.65 M parameters."""
    return VAEConfig()


def sd21() -> VAEConfig:
    """Return Stable Diffusion 2.x's autoencoder: that of 1.x, in a model for 768 pixels."""
    return VAEConfig(sample_size=768)


def sdxl() -> VAEConfig:
    """Return SDXL's and its refiner's autoencoder: that of 1.x, with weights that overflow float16.

    Podell et al., arXiv:2307.01952, section 2.4.
    """
    return VAEConfig(scaling_factor=0.13025, sample_size=1024, force_upcast=True)


def scenes() -> VAEConfig:
    """Return the embedded model's autoencoder: f = 8, 8 channels, 3.90 M parameters."""
    return VAEConfig(
        latent_channels=8,
        block_out_channels=(32, 64, 128, 128),
        layers_per_block=1,
        norm_num_groups=16,
        scaling_factor=1.0,
        sample_size=128,
    )
