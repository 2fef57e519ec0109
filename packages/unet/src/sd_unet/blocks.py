"""The blocks of one resolution: on the way down, in the middle, on the way up."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sd_unet.batches import as_many
from sd_unet.config import UNetConfig
from sd_unet.pixel_attention import PixelAttention
from sd_unet.resnet import Downsample, ResnetBlock, Upsample
from sd_unet.transformer import SpatialTransformer


class Block(nn.Module):
    """A block that may recompute its layers in the backward pass instead of keeping them."""

    def __init__(self) -> None:
        super().__init__()
        self.gradient_checkpointing = False

    def run(self, layer: nn.Module, *inputs: Tensor | None) -> Tensor:
        """Call a layer, checkpointed (Chen et al., arXiv:1604.06174) where gradients flow."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(layer, *inputs, use_reentrant=False)
            return recomputed
        out: Tensor = layer(*inputs)
        return out


class DownBlock(Block):
    """Res blocks, each with a transformer where the level has attention, then half the size."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__()
        channels = config.block_out_channels
        num_layers = config.layers_per_block
        inputs = [channels[max(level - 1, 0)]] + [channels[level]] * (num_layers - 1)
        self.resnets = nn.ModuleList(ResnetBlock(c, channels[level], config) for c in inputs)
        self.attentions: nn.ModuleList | None = None
        if config.attention_levels[level]:
            self.attentions = _attentions(config, level, num_layers)
        self.downsamplers: nn.ModuleList | None = None
        if level < config.num_levels - 1:
            self.downsamplers = nn.ModuleList([Downsample(channels[level])])

    def forward(
        self, x: Tensor, time_embedding: Tensor, hidden_states: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the block's result and, oldest first, the skips that the way up will want."""
        skips = []
        for index, resnet in enumerate(self.resnets):
            x = self.run(resnet, x, time_embedding)
            if self.attentions is not None:
                x = self.run(self.attentions[index], x, hidden_states)
            skips.append(x)
        if self.downsamplers is not None:
            x = self.downsamplers[0](x)
            skips.append(x)
        return x, skips


class MidBlock(Block):
    """Res block, transformer, res block at the coarsest level."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        channels = config.block_out_channels[-1]
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, config) for _ in range(2))
        self.attentions = _attentions(config, config.num_levels - 1, 1)

    def forward(self, x: Tensor, time_embedding: Tensor, hidden_states: Tensor | None) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        x = self.run(self.resnets[0], x, time_embedding)
        x = self.run(self.attentions[0], x, hidden_states)
        return self.run(self.resnets[1], x, time_embedding)


class UpBlock(Block):
    """Res blocks that each take in a skip, with transformers, then the size of the next level."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__()
        channels = config.block_out_channels
        num_layers = config.layers_per_block + 1
        width, last = channels[level], config.num_levels - 1
        inputs = [channels[min(level + 1, last)]] + [width] * (num_layers - 1)
        skips = [width] * (num_layers - 1) + [channels[max(level - 1, 0)]]
        self.resnets = nn.ModuleList(
            ResnetBlock(below + skip, width, config)
            for below, skip in zip(inputs, skips, strict=True)
        )
        self.attentions: nn.ModuleList | None = None
        if config.attention_levels[level]:
            self.attentions = _attentions(config, level, num_layers)
        self.upsamplers: nn.ModuleList | None = None
        if level > 0:
            self.upsamplers = nn.ModuleList([Upsample(width)])

    def forward(
        self, x: Tensor, time_embedding: Tensor, hidden_states: Tensor | None, skips: list[Tensor]
    ) -> Tensor:
        """Return the block's result at the next skip's size, taking its own off ``skips``' end."""
        for index, resnet in enumerate(self.resnets):
            skip = as_many(skips.pop(), x)
            x = self.run(resnet, torch.cat([x, skip], dim=1), time_embedding)
            if self.attentions is not None:
                x = self.run(self.attentions[index], x, hidden_states)
        if self.upsamplers is not None:
            # Rounded up on the way down, so the size is the skip's, which need not be twice ours.
            x = self.upsamplers[0](x, skips[-1].shape[-2:])
        return x


def _attentions(config: UNetConfig, level: int, number: int) -> nn.ModuleList:
    """Make a level's transformers, or where no text is heard the attention of its pixels."""
    transformer = config.transformer(level)
    if not config.takes_text:
        eps = config.norm_eps
        return nn.ModuleList(PixelAttention(transformer, norm_eps=eps) for _ in range(number))
    return nn.ModuleList(SpatialTransformer(transformer) for _ in range(number))
