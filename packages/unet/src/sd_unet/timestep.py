"""How the network is told the time."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sd_ops import Linear


def sinusoidal_embedding(timesteps: Tensor, num_channels: int) -> Tensor:
    """Embed timesteps (B,), whole or between, as cosines then sines (B, C) in float32.

    Vaswani et al., arXiv:1706.03762, section 3.5, with the halves laid as in DDPM's successors
    (cosine first) and frequencies 10000 ** (-i / (C / 2)).
    """
    half = num_channels // 2
    # In this order of operations the float32 result is that of the networks' first trainers.
    exponents = -math.log(10000.0) * torch.arange(half, device=timesteps.device).float() / half
    angles = timesteps.float()[:, None] * torch.exp(exponents)
    embedding = torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)
    return F.pad(embedding, (0, num_channels % 2))


class TimestepEmbedding(nn.Module):
    """The two-layer network over the sinusoids: (B, C) -> (B, D)."""

    def __init__(self, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        self.linear_1 = Linear(in_channels, embed_dim)
        self.linear_2 = Linear(embed_dim, embed_dim)

    def forward(self, embedding: Tensor) -> Tensor:
        """Map sinusoids (B, C) to what the res blocks read, (B, D)."""
        out: Tensor = self.linear_2(F.silu(self.linear_1(embedding)))
        return out
