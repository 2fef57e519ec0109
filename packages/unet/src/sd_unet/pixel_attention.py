"""Self-attention of a feature map's pixels: all the attention of a UNet that hears no text."""

from einops import rearrange
from torch import Tensor, nn

from sd_unet.config import TransformerConfig
from sd_unet.transformer import Attention


class PixelAttention(Attention):
    """Let pixels attend to one another (Ho et al., arXiv:2006.11239, appendix B).

    It is the attention of diffusers' AttnDownBlock2D and its like, under their names.
    """

    def __init__(self, config: TransformerConfig, *, norm_eps: float) -> None:
        super().__init__(config, config.channels, bias=True)
        self.group_norm = nn.GroupNorm(config.norm_num_groups, config.channels, eps=norm_eps)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Add to a map (B, C, H, W) what its pixels find in one another; no text is heard."""
        pixels = self._pixels(tokens)
        return tokens + _as_map(super().forward(pixels, pixels), tokens)

    def seeing_itself(self, tokens: Tensor) -> Tensor:
        """Add to a map (B, C, H, W) what its pixels find where each sees itself alone."""
        return tokens + _as_map(super().seeing_itself(self._pixels(tokens)), tokens)

    def _pixels(self, x: Tensor) -> Tensor:
        pixels: Tensor = rearrange(self.group_norm(x), "b c h w -> b (h w) c")
        return pixels


def _as_map(tokens: Tensor, like: Tensor) -> Tensor:
    return rearrange(tokens, "b (h w) c -> b c h w", h=like.shape[-2])
