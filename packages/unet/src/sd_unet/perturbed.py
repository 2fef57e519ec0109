"""Self-attention in which, for a part of a batch, every place sees itself alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from sd_unet.backbones import Backbone
from sd_unet.dit import DiT, DiTBlock
from sd_unet.errors import UNetInputError
from sd_unet.pixel_attention import PixelAttention
from sd_unet.transformer import Attention, TransformerBlock

_BLOCKS = {"mid": "mid_block", "down": "down_blocks", "up": "up_blocks"}
_DIT_BLOCKS = "transformer_blocks"


@contextmanager
def perturbed_attention(unet: Backbone, layers: Sequence[str], num_rows: int) -> Iterator[None]:
    """Perturb the self-attention of `layers` for the last `num_rows` rows of each batch.

    Ahn et al., "Perturbed-Attention Guidance", arXiv 2403.17377, section 4.2: the identity stands
    in place of the attention map, so that what comes out are the values. The other rows, and all
    of them when the context is left, are as ever; 0 rows are none. For prediction alone: a backward
    pass outside the context recomputes checkpointed layers without it. Layers are named as for
    `self_attentions`, and `UNetInputError` is raised as there.
    """
    with ExitStack() as hooks:
        if num_rows > 0:
            for attention in self_attentions(unet, layers).values():
                hooks.enter_context(attention.register_forward_hook(_seeing_itself(num_rows)))
        yield


def self_attentions(unet: Backbone, layers: Sequence[str]) -> Mapping[str, Attention]:
    """Return the self-attentions of some layers, by their module names.

    A layer is mid, down or up, or a part of one by its module name: from down_blocks.1 to
    up_blocks.1.attentions.0.transformer_blocks.0.attn1. In a DiT, which has no such parts, mid is
    the block in the middle. Raises `UNetInputError` where a layer has none.
    """
    found = {
        f"{name}.attn1": module.attn1
        for name, module in unet.named_modules()
        if isinstance(module, TransformerBlock | DiTBlock)
    }
    found |= {
        name: module for name, module in unet.named_modules() if isinstance(module, PixelAttention)
    }
    names = _BLOCKS
    if isinstance(unet, DiT):
        names = {"mid": f"{_DIT_BLOCKS}.{len(unet.transformer_blocks) // 2}"}
    chosen: dict[str, Attention] = {}
    for layer in layers:
        within = f"{names.get(layer, layer)}."
        part = {name: found[name] for name in found if f"{name}.".startswith(within)}
        if not part:
            places = (name.removesuffix(".attn1").partition(".attentions.")[0] for name in found)
            raise UNetInputError(
                f"layer {layer!r} has no self-attention in this UNet: choose {', '.join(names)}, "
                f"or of {', '.join(dict.fromkeys(places))}"
            )
        chosen |= part
    return chosen


def _seeing_itself(num_rows: int) -> Callable[[Attention, tuple[Tensor, Tensor], Tensor], Tensor]:
    def hook(attention: Attention, args: tuple[Tensor, Tensor], output: Tensor) -> Tensor:
        return torch.cat([output[:-num_rows], attention.seeing_itself(args[0][-num_rows:])])

    return hook
