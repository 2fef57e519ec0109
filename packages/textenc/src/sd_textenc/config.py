"""The architecture of a CLIP text encoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from sd_textenc.errors import TextEncoderError

_ACTIVATIONS = ("quick_gelu", "gelu")
_WITH_PROJECTION = "CLIPTextModelWithProjection"
# Our name -> the name in transformers' config.json.
_FILE_NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "max_positions": "max_position_embeddings",
    "hidden_act": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
}
# What transformers takes where config.json is silent (its files may leave defaults out).
_FILE_DEFAULTS: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_layers": 12,
    "num_heads": 8,
    "max_positions": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CLIPTextConfig:
    """Say the sizes of a CLIP text transformer (Radford et al., 2021, arXiv 2103.00020, 2.4).

    `projection_dim` is None where the pooled vector is not projected, as in SD 1.x. The token
    ids are kept as files give them: SD 1.x folders carry bos 0 and eos 2, which nothing but
    transformers' pooling reads.

    Raises:
        TextEncoderError: a size is not positive, the heads do not divide the width, or the
            activation is unknown.

    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    max_positions: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int | None = None
    bos_token_id: int = 49406
    eos_token_id: int = 49407

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads")
        for name in (*sizes, "max_positions"):
            value = getattr(self, name)
            if value is None or value < 1:  # a file may say null
                raise TextEncoderError(f"{name} is {value}; it must be at least 1")
        if self.hidden_size % self.num_heads:
            raise TextEncoderError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}; "
                "choose heads that divide it"
            )
        if self.hidden_act not in _ACTIVATIONS:
            raise TextEncoderError(
                f"hidden_act is {self.hidden_act!r}; it must be one of {', '.join(_ACTIVATIONS)}"
            )

    def to_diffusers(self) -> dict[str, Any]:
        """Return the config.json of a diffusers `text_encoder` folder, which is transformers'."""
        projected = self.projection_dim is not None
        return {
            "architectures": [_WITH_PROJECTION if projected else "CLIPTextModel"],
            "model_type": "clip_text_model",
            **{theirs: getattr(self, ours) for ours, theirs in _FILE_NAMES.items()},
            "pad_token_id": self.eos_token_id,
            # CLIPTextModel reads no projection, yet its config must have the number.
            "projection_dim": self.projection_dim if projected else self.hidden_size,
            # Else transformers 5 computes in whatever the weights are stored as, half precision
            # included, and diffusers' fp32 UNet refuses the states.
            "dtype": "float32",
            "attention_dropout": 0.0,
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
        }

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> Self:
        """Read a `text_encoder/config.json`; what it leaves out has transformers' default.

        Raises:
            TextEncoderError: the file describes another model, or a size is impossible.

        """
        model_type = config.get("model_type", "clip_text_model")
        if model_type != "clip_text_model":
            raise TextEncoderError(
                f"model_type is {model_type!r}; only 'clip_text_model' is a CLIP text encoder"
            )
        values = {
            ours: config.get(theirs, _FILE_DEFAULTS[ours]) for ours, theirs in _FILE_NAMES.items()
        }
        values["layer_norm_eps"] = float(values["layer_norm_eps"])  # transformers wants no int
        projected = _WITH_PROJECTION in (config.get("architectures") or ())
        return cls(
            **values, projection_dim=config.get("projection_dim", 512) if projected else None
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenCLIPTextConfig(CLIPTextConfig):
    """Say the sizes of a CLIP text transformer that OpenCLIP trained (arXiv 2212.07143).

    The architecture is CLIP's, with the exact GELU; the type says that the weights are computed
    by open_clip (`OpenCLIPTextEncoder`) and lie in its own layout in single files.
    """

    hidden_act: str = "gelu"


def text_encoder_config(config: Mapping[str, Any]) -> CLIPTextConfig:
    """Read a `text_encoder/config.json`, or `text_encoder_2/`, as the type it belongs to.

    The rule: a tower with the exact GELU and at least CLIP's 49,408 ids is OpenCLIP's (SD 2.x,
    SDXL's second, the refiner's); every other is transformers', OpenAI's quick GELU towers as
    well as a GELU tower with a vocabulary of its own. Either class gives equal numbers; the
    type decides which library computes them and what a single file's layout is.

    Raises:
        TextEncoderError: the file describes another model, or a size is impossible.

    """
    sizes = CLIPTextConfig.from_diffusers(config)
    if sizes.hidden_act == "gelu" and sizes.vocab_size >= _FILE_DEFAULTS["vocab_size"]:
        return OpenCLIPTextConfig.from_diffusers(config)
    return sizes


def vit_l14() -> CLIPTextConfig:
    """Return OpenAI CLIP ViT-L/14's text tower, of SD 1.x and SDXL's first: 123.06 M parameters."""
    return CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_layers=12, num_heads=12
    )


def vit_h14() -> OpenCLIPTextConfig:
    """Return OpenCLIP ViT-H/14's text tower as SD 2.x uses it: 340.39 M parameters.

    23 of its 24 layers, and no projection: SD 2.x reads the last layer but one.
    """
    return OpenCLIPTextConfig(
        vocab_size=49408, hidden_size=1024, intermediate_size=4096, num_layers=23, num_heads=16
    )


def vit_bigg14() -> OpenCLIPTextConfig:
    """Return OpenCLIP ViT-bigG/14's text tower, SDXL's second, the refiner's one: 694.66 M."""
    return OpenCLIPTextConfig(
        vocab_size=49408,
        hidden_size=1280,
        intermediate_size=5120,
        num_layers=32,
        num_heads=20,
        projection_dim=1280,
    )


def scenes(vocab_size: int) -> CLIPTextConfig:
    """Return the embedded model's encoder for a vocabulary from `train_tokenizer`."""
    return CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=1024,
        num_layers=4,
        num_heads=4,
        max_positions=32,
        hidden_act="gelu",
        bos_token_id=vocab_size - 2,
        eos_token_id=vocab_size - 1,
    )
