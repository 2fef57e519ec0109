"""A difference of weights kept whole, as LyCORIS's "full" and kohya's extractions have it."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from sd_adapters.adapter import AdapterError
from sd_adapters.layer import WeightLayer
from sd_adapters.targets import Target


class FullLayer(WeightLayer):
    """The addition of a whole tensor to one target's weight, and of another to its bias.

    Raises ``AdapterError`` where there is one for the bias, and the target has no bias.
    """

    marks = frozenset({"diff", "diff_b"})

    def __init__(self, target: Target, *, bias: bool = False) -> None:
        super().__init__(target, rank=None, alpha=None)
        if bias and target.bias is None:
            raise AdapterError("there is an addition to the bias, and the target has no bias")
        self.diff = nn.Parameter(torch.zeros(self.shape))
        self.diff_b = nn.Parameter(torch.zeros(self.shape[0])) if bias else None

    @classmethod
    def like(cls, target: Target, parts: Mapping[str, Tensor]) -> Self:
        """Make a layer that is built as a file's tensors are: see ``WeightLayer``."""
        return cls(target, bias="diff_b" in parts)

    def product(self) -> Tensor:
        """Return the difference."""
        return self.diff.float()

    def bias_addition(self) -> Tensor | None:
        """Return what is added to the target's bias (out,), or None."""
        return None if self.diff_b is None else self.diff_b.float()
