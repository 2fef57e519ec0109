"""Batches of which one is told several texts."""

import torch
from torch import Tensor


def as_many(x: Tensor, other: Tensor) -> Tensor:
    """Repeat x (B, ...) to the length of `other`, R * B: all of it, and all of it again.

    So what several texts have in common is computed once.
    """
    times = len(other) // len(x)
    # Unlike `repeat`, `cat` keeps channels_last.
    return x if times <= 1 else torch.cat([x] * times)
