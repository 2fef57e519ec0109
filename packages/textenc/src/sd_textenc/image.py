"""CLIP's other half: the encoder of pictures, through open_clip."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sd_textenc.errors import TextEncoderError

# Of the pictures that OpenAI's CLIP was trained on, in [0, 1] (open_clip's OPENAI_DATASET_MEAN).
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_CLASS = "CLIPImageEncoder"


@dataclass(frozen=True, kw_only=True, slots=True)
class CLIPImageConfig:
    """Say the sizes of a CLIP vision transformer (Radford et al., 2021, arXiv 2103.00020, 2.4).

    Raises:
        TextEncoderError: a size is not positive, patches do not divide the picture, or heads the
            width.

    """

    image_size: int
    patch_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    projection_dim: int
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise TextEncoderError(f"{field.name} is {value}; it must be at least 1")
        for whole, part in (("image_size", "patch_size"), ("hidden_size", "num_heads")):
            if getattr(self, whole) % getattr(self, part):
                raise TextEncoderError(
                    f"{whole} {getattr(self, whole)} is not a multiple of {part} "
                    f"{getattr(self, part)}; choose one that divides it"
                )
        if self.hidden_act not in ("quick_gelu", "gelu"):
            raise TextEncoderError(
                f"hidden_act is {self.hidden_act!r}; it must be one of quick_gelu, gelu"
            )

    def to_json(self) -> dict[str, Any]:
        """Return its config.json."""
        return {"_class_name": _CLASS, **asdict(self)}

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> "CLIPImageConfig":
        """Read that config.json; raises TextEncoderError for another one."""
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in config.items() if name != "_class_name"}
        if config.get("_class_name") != _CLASS or given.keys() - known:
            raise TextEncoderError(
                f"this config.json is of {config.get('_class_name')!r}; give one of {_CLASS}"
            )
        return cls(**given)


class CLIPImageEncoder(nn.Module):
    """Encode pictures into the space of a text encoder's projected vectors.

    `model` is open_clip's VisionTransformer, random until weights are loaded.
    """

    def __init__(self, config: CLIPImageConfig) -> None:
        super().__init__()
        self.config = config
        # Imported here: open_clip takes seconds, and most of this package needs none of it.
        from open_clip.transformer import LayerNorm, QuickGELU, VisionTransformer

        self.model: Any = VisionTransformer(
            image_size=config.image_size,
            patch_size=config.patch_size,
            width=config.hidden_size,
            layers=config.num_layers,
            heads=config.num_heads,
            # open_clip cuts width * ratio to a whole number; the half keeps it from falling short.
            mlp_ratio=(config.intermediate_size + 0.5) / config.hidden_size,
            output_dim=config.projection_dim,
            act_layer=QuickGELU if config.hidden_act == "quick_gelu" else nn.GELU,
            norm_layer=partial(LayerNorm, eps=config.layer_norm_eps),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map pictures (B, 3, S, S) in [-1, 1] to vectors (B, P), not yet of length one.

        Raises:
            TextEncoderError: the pictures have not the size that was trained.

        """
        side = self.config.image_size
        if images.shape[-2:] != (side, side):
            raise TextEncoderError(
                f"pictures of {images.shape[-1]} x {images.shape[-2]} do not fit this encoder: "
                f"resize them to {side} x {side}"
            )
        mean, std = (
            torch.tensor(values, device=images.device, dtype=images.dtype)[:, None, None]
            for values in (_MEAN, _STD)
        )
        vectors: Tensor = self.model(((images + 1) / 2 - mean) / std)
        return vectors


def vit_l14_image() -> CLIPImageConfig:
    """Return OpenAI CLIP ViT-L/14's vision tower: 303.97 M parameters."""
    return CLIPImageConfig(
        image_size=224,
        patch_size=14,
        hidden_size=1024,
        intermediate_size=4096,
        num_layers=24,
        num_heads=16,
        projection_dim=768,
    )


def scenes_image() -> CLIPImageConfig:
    """Return a small one for pictures of 128 px: 5.02 M parameters."""
    return CLIPImageConfig(
        image_size=128,
        patch_size=16,
        hidden_size=256,
        intermediate_size=1024,
        num_layers=6,
        num_heads=4,
        projection_dim=256,
    )
