"""Text encoders in single files: LDM's layout, its names, and the sizes that its shapes tell.

Names are those beneath `cond_stage_model.` (SD 1.x, 2.x) or `conditioner.embedders.N.` (SDXL).
CLIP lies there in transformers' layout, below `transformer.`, OpenCLIP in its own, below `model.`.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sd_checkpoint import KeyMap, Rule
from sd_textenc.config import CLIPTextConfig, OpenCLIPTextConfig
from sd_textenc.errors import TextEncoderError
from sd_textenc.keys import is_no_weight, open_clip_rules, without

_HEAD_WIDTH = 64  # in every CLIP text tower
_VIT_H_DEPTH = 24
_CLIP_VOCABULARY = 49_408


def ldm_key_map(config: CLIPTextConfig) -> KeyMap:
    """Map a single file's names to a folder's (`text_model...`), total both ways.

    What a file holds beyond the encoder (`ldm_passes_over`) is to be left out first, as
    `ldm_tensors` does. Very old files lack the part `text_model.`; the inverse writes it.
    """
    if isinstance(config, OpenCLIPTextConfig):
        rules = [rule.reversed() for rule in open_clip_rules("text_model.", "model.")]
        projection = Rule("model.text_projection", "text_projection.weight", ("d p", "p d"))
        return KeyMap([projection, *rules])
    return KeyMap(
        [
            Rule("transformer.text_model.{*}", "text_model.{*}"),
            Rule("transformer.text_projection.{}", "text_projection.{}"),
            Rule("transformer.{*}", "text_model.{*}"),
        ]
    )


def ldm_passes_over(config: CLIPTextConfig, name: str) -> bool:
    """Tell whether a single file's tensor has no part in encoding and is left out.

    That is the contrastive temperature, counted positions, a mask, the projection where the
    encoder has none, and the last layer of OpenCLIP's ViT-H, which SD 2.x does not run. A
    single file written from a folder lacks them, as those of diffusers' own converter do.
    """
    if is_no_weight(name) or name.endswith(("logit_scale", "attn_mask")):
        return True
    if config.projection_dim is not None:
        return False
    beyond = f"model.transformer.resblocks.{config.num_layers}."
    return "text_projection" in name or name.startswith(beyond)


def ldm_tensors(config: CLIPTextConfig, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return a single file's tensors under a folder's names, each read when it is asked for.

    Raises sd_checkpoint's CheckpointError where a name fits no rule.
    """
    kept = without(tensors, lambda name: ldm_passes_over(config, name))
    return ldm_key_map(config).apply(kept)


def ldm_config(
    shapes: Mapping[str, tuple[int, ...]], *, projected: bool = False, num_heads: int | None = None
) -> CLIPTextConfig:
    """Read an encoder's sizes from the shapes of a single file's tensors.

    `projected` says that the denoiser takes the projected pooled vector (OpenCLIP in SDXL);
    without it OpenCLIP's last layer is left out, as SD 2.x does. It is there where the file
    still has the projection or all 24 layers of ViT-H: files that come from a folder hold 23.
    Heads are 64 wide unless `num_heads` is given; OpenAI's towers have the quick GELU.

    Raises:
        TextEncoderError: a tensor is missing, or the width has no whole number of heads.

    """
    if any(name.startswith("model.") for name in shapes):
        return _open_clip_config(shapes, projected, num_heads)
    prefix = "transformer.text_model."
    if not any(name.startswith(prefix) for name in shapes):
        prefix = "transformer."
    sizes = _sizes(
        shapes,
        f"{prefix}embeddings.",
        ("token_embedding.weight", "position_embedding.weight"),
        num_heads,
    )
    layer = f"{prefix}encoder.layers."
    return CLIPTextConfig(
        **sizes,
        num_layers=_depth(shapes, layer),
        intermediate_size=_shape(shapes, f"{layer}0.mlp.fc1.weight")[0],
    )


def _open_clip_config(
    shapes: Mapping[str, tuple[int, ...]], projected: bool, num_heads: int | None
) -> OpenCLIPTextConfig:
    sizes = _sizes(shapes, "model.", ("token_embedding.weight", "positional_embedding"), num_heads)
    layer = "model.transformer.resblocks."
    depth = _depth(shapes, layer)
    if not projected and ("model.text_projection" in shapes or depth == _VIT_H_DEPTH):
        depth -= 1
    return OpenCLIPTextConfig(
        **sizes,
        num_layers=depth,
        intermediate_size=_shape(shapes, f"{layer}0.mlp.c_fc.weight")[0],
        projection_dim=_shape(shapes, "model.text_projection")[1] if projected else None,
    )


def _sizes(
    shapes: Mapping[str, tuple[int, ...]],
    prefix: str,
    embeddings: tuple[str, str],
    num_heads: int | None,
) -> dict[str, Any]:
    vocab_size, width = _shape(shapes, prefix + embeddings[0])
    if num_heads is None and width % _HEAD_WIDTH:
        raise TextEncoderError(
            f"the text encoder's width is {width}, no multiple of {_HEAD_WIDTH}; give its num_heads"
        )
    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_heads": num_heads or width // _HEAD_WIDTH,
        "max_positions": _shape(shapes, prefix + embeddings[1])[0],
    }
    if vocab_size < _CLIP_VOCABULARY:
        # A vocabulary of its own: start and end come last, as `train_tokenizer` places them.
        sizes |= {"bos_token_id": vocab_size - 2, "eos_token_id": vocab_size - 1}
    return sizes


def _depth(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)})


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    if name not in shapes:
        raise TextEncoderError(
            f"the file lacks the text encoder's {name}; it is of another model family"
        )
    return shapes[name]
