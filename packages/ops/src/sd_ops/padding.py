"""Zeros around pictures."""

from torch import Tensor

__all__ = ["padded"]


def padded(x: Tensor, padding: int, height: int, width: int) -> Tensor:
    """Return pictures (B, C, H, W) as (B, height, width, C), zeros around them.

    `padding` zeros are above and to the left, and what is left over below and to the right.
    """
    seen = x.new_zeros(x.shape[0], height, width, x.shape[1])
    inner = seen[:, padding : padding + x.shape[2], padding : padding + x.shape[3]]
    inner.copy_(x.permute(0, 2, 3, 1))
    return seen
