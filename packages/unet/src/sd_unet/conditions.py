"""What SDXL's UNet is told beside the text's hidden states (Podell et al., arXiv:2307.01952)."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from sd_unet.config import UNetConfig
from sd_unet.errors import UNetInputError
from sd_unet.timestep import sinusoidal_embedding


class AddedConditions(NamedTuple):
    """The pooled text (B, P) and the sizes (B, N) in pixels (arXiv:2307.01952, section 2.2).

    SDXL's six sizes are the original's height and width, the crop's top and left, the target's
    height and width. The refiner's five have an aesthetic score, 0 to 10, in the place of the
    last two. Sizes are best kept in float32: bfloat16 cannot tell 1022 from 1024.
    """

    pooled: Tensor
    sizes: Tensor


def embed_conditions(config: UNetConfig, added: AddedConditions, dtype: torch.dtype) -> Tensor:
    """Lay the pooled text and the sinusoids of each size side by side, (B, P + N * C).

    Raises ``UNetInputError`` when there are not as many sizes as the network has learnt.
    """
    pooled, sizes = added
    num_channels = config.addition_time_embed_dim
    assert num_channels is not None
    expected = (len(pooled), config.num_sizes(pooled.shape[-1]))
    if tuple(sizes.shape) != expected:
        raise UNetInputError(
            f"sizes of shape {tuple(sizes.shape)} do not go with a pooled text of shape "
            f"{tuple(pooled.shape)} in this UNet: give {expected}"
        )
    sinusoids = sinusoidal_embedding(sizes.flatten(), num_channels)
    embedded = rearrange(sinusoids, "(b n) c -> b (n c)", n=expected[1])
    return torch.cat([pooled.to(dtype), embedded.to(dtype)], dim=-1)
