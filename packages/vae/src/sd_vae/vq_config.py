"""The autoencoder with a codebook as data, and diffusers' config.json of it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sd_vae.config import VAEConfig, VAEError

__all__ = ["VQConfig", "config_from_diffusers", "with_codebook"]

_OF_GAUSSIANS = (
    "latents_mean",
    "latents_std",
    "shift_factor",
    "use_post_quant_conv",
    "use_quant_conv",
)
_ONLY = {"norm_type": "group", "lookup_from_codebook": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class VQConfig(VAEConfig):
    """Say the architecture of an autoencoder with a codebook of `num_embeddings` vectors.

    They have `latent_channels` values each. Raises as `VAEConfig`, and for an empty codebook.
    """

    num_embeddings: int = 8192

    def __post_init__(self) -> None:
        VAEConfig.__post_init__(self)
        if self.num_embeddings < 1:
            raise VAEError(f"num_embeddings {self.num_embeddings} is too few; use at least 1")

    def to_diffusers(self) -> dict[str, Any]:
        """Return the whole config.json of diffusers' VQModel."""
        plain = VAEConfig.to_diffusers(self)
        kept = {name: value for name, value in plain.items() if name not in _OF_GAUSSIANS}
        return kept | {
            "_class_name": "VQModel",
            "num_vq_embeddings": self.num_embeddings,
            "vq_embed_dim": self.latent_channels,
            **_ONLY,
        }

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> "VQConfig":
        """Read diffusers' config.json; raises `VAEError` where it asks for what is not here.

        A field that the file leaves out has diffusers' own default.
        """
        if config.get("_class_name", "VQModel") != "VQModel":
            raise VAEError(f"this config is of a {config['_class_name']}, not a VQModel")
        plain = VAEConfig.from_diffusers(
            {"latent_channels": 3, **config, "_class_name": "AutoencoderKL"}
        )
        width = config.get("vq_embed_dim")
        wanted = {**_ONLY, "vq_embed_dim": plain.latent_channels if width is not None else None}
        for name, only in wanted.items():
            if config.get(name, only) != only:
                raise VAEError(
                    f"this autoencoder has {name} {config[name]!r:.60}; only {only!r} is built here"
                )
        return with_codebook(plain, num_embeddings=config.get("num_vq_embeddings", 256))


def with_codebook(config: VAEConfig, *, num_embeddings: int = 8192) -> VQConfig:
    """Return the architecture of `config` with a codebook in place of the Gaussian."""
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(VAEConfig)}
    return VQConfig(**fields, num_embeddings=num_embeddings)


def config_from_diffusers(config: Mapping[str, Any]) -> VAEConfig:
    """Read diffusers' config.json of either kind of autoencoder, by its `_class_name`.

    Raises `VAEError` where it asks for what is not here.
    """
    kind = VQConfig if config.get("_class_name") == "VQModel" else VAEConfig
    return kind.from_diffusers(config)
