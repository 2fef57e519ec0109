"""The autoencoder's two networks, a layer at a time."""

from collections.abc import Iterable
from typing import Protocol

from torch import nn

from sd_vae.autoencoder import AutoencoderKL
from sd_vae.blocks import Downsample, MidBlock, ResnetBlock, SelfAttention, Upsample
from sd_vae.tiling.attention import Attended, Projected
from sd_vae.tiling.rows import Convolved, Doubled, Halved, Kept, Normed, Rows, Sum

__all__ = ["Keeper", "decoded", "moments_of_latents"]


class Keeper(Protocol):
    """Keep whole what the next layer's norm has to know the whole of."""

    @property
    def band_values(self) -> int:
        """How many values the bands at work may be."""
        ...

    def keep(self, rows: Rows) -> Kept:
        """Compute an activation and keep it."""
        ...

    def release(self, kept: Kept) -> None:
        """Let go of one that no layer reads any more."""
        ...


def decoded(vae: AutoencoderKL, z: Rows, keeper: Keeper) -> Rows:
    """Return the pictures of z (B, C, h, w); its last convolution is done when they are read."""
    decoder = vae.decoder
    x = keeper.keep(Convolved(decoder.conv_in, Convolved(vae.post_quant_conv, z)))
    blocks = (layer for block in decoder.up_blocks for layer in _layers(block))
    for layer in (*_mid_layers(decoder.mid_block), *blocks):
        x = _through(layer, x, keeper)
    return Convolved(decoder.conv_out, Normed(decoder.conv_norm_out, x))


def moments_of_latents(vae: AutoencoderKL, images: Rows, keeper: Keeper) -> Rows:
    """Return the posterior's moments (B, 2C, H/f, W/f); the last two layers when they are read."""
    encoder = vae.encoder
    x = keeper.keep(Convolved(encoder.conv_in, images))
    blocks = (layer for block in encoder.down_blocks for layer in _layers(block))
    for layer in (*blocks, *_mid_layers(encoder.mid_block)):
        x = _through(layer, x, keeper)
    return Convolved(vae.quant_conv, Convolved(encoder.conv_out, Normed(encoder.conv_norm_out, x)))


def _layers(block: nn.Module) -> Iterable[nn.Module]:
    """Return the layers of an up or a down block in their order."""
    return (layer for part in block.children() for layer in part.children())


def _mid_layers(block: MidBlock) -> Iterable[nn.Module]:
    before, after = block.resnets
    return (before, *block.attentions, after)


def _through(layer: nn.Module, x: Kept, keeper: Keeper) -> Kept:
    """Return what a layer makes of x, of which nothing stays."""
    if isinstance(layer, ResnetBlock):
        out = _resnet(layer, x, keeper)
    elif isinstance(layer, SelfAttention):
        out = _attention(layer, x, keeper)
    elif isinstance(layer, Upsample):
        out = keeper.keep(Convolved(layer.conv, Doubled(x)))
    else:
        assert isinstance(layer, Downsample)
        out = keeper.keep(Halved(layer, x))
    keeper.release(x)
    return out


def _resnet(block: ResnetBlock, x: Kept, keeper: Keeper) -> Kept:
    hidden_states = keeper.keep(Convolved(block.conv1, Normed(block.norm1, x)))
    shortcut = x if block.conv_shortcut is None else Convolved(block.conv_shortcut, x)
    convolved = Convolved(block.conv2, Normed(block.norm2, hidden_states))
    out = keeper.keep(Sum(convolved, shortcut))
    keeper.release(hidden_states)
    return out


def _attention(layer: SelfAttention, x: Kept, keeper: Keeper) -> Kept:
    normed = Normed(layer.group_norm, x, activate=False)
    keys = keeper.keep(Projected(layer.to_k, normed))
    values = keeper.keep(Projected(layer.to_v, normed))
    attended = Attended(layer, normed, keys, values, keeper.band_values)
    out = keeper.keep(Sum(attended, x))
    keeper.release(keys)
    keeper.release(values)
    return out
