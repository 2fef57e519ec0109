"""GLoRA: a low-rank addition, and a low-rank change of what goes into the weight."""

import math
from collections.abc import Mapping
from typing import Self

from torch import Tensor, nn

from sd_adapters.layer import WeightLayer
from sd_adapters.targets import Target


class GloraLayer(WeightLayer):
    """The addition (alpha / rank) (W A1 A2 + B1 B2) to one linear or convolution.

    Chavan et al., arXiv:2306.07967, equation 7, of whose terms LyCORIS has these two.
    """

    marks = frozenset({"a1.weight", "a2.weight", "b1.weight", "b2.weight"})

    def __init__(self, target: Target, rank: int, alpha: float) -> None:
        super().__init__(target, rank, alpha)
        out_channels, in_channels, *kernel = self.shape
        self.a1 = nn.Linear(rank, in_channels, bias=False)
        self.a2 = nn.Linear(in_channels, rank, bias=False)
        self.b1 = nn.Linear(rank, out_channels, bias=False)
        self.b2 = nn.Linear(in_channels * math.prod(kernel), rank, bias=False)
        for layer in (self.a2, self.b2):
            nn.init.zeros_(layer.weight)

    @classmethod
    def like(cls, target: Target, parts: Mapping[str, Tensor]) -> Self:
        """Make a layer that is built as a file's tensors are: see ``WeightLayer``."""
        rank = parts["a2.weight"].shape[0]
        return cls(target, rank, float(rank))

    def product(self) -> Tensor:
        """Return B1 B2 in the weight's shape, the part that does not depend on the weight."""
        return (self.b1.weight.float() @ self.b2.weight.float()).reshape(self.shape)

    def addition(self, weight: Tensor) -> Tensor:
        """Return what makes of the target's weight the adapted one, in its shape, in float32."""
        inputs = self.a1.weight.float() @ self.a2.weight.float()
        turned = (weight.float().movedim(1, -1) @ inputs).movedim(-1, 1)
        return (turned + self.product()) * self.scale
