"""(IA)3: a factor for every row or column of a weight."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from sd_adapters.adapter import AdapterError
from sd_adapters.layer import WeightLayer
from sd_adapters.targets import Target


class Ia3Layer(WeightLayer):
    """The addition W * w, where w has a number for each output of the target, or for each input.

    Liu et al., arXiv:2205.05638, section 3.3, with 1 + w for their l, as LyCORIS keeps it.
    """

    marks = frozenset({"on_input"})

    def __init__(self, target: Target, *, on_input: bool) -> None:
        super().__init__(target, rank=None, alpha=None)
        count = self.shape[1 if on_input else 0]
        # A linear's are (n,), a convolution's (1, n, 1, 1), whichever side they are of.
        ones = [1] * (len(self.shape) - 2)
        self.weight = nn.Parameter(torch.zeros(1, count, *ones) if ones else torch.zeros(count))
        self.register_buffer("on_input", torch.tensor(float(on_input)))
        self._axis = 1 if on_input else 0

    @classmethod
    def like(cls, target: Target, parts: Mapping[str, Tensor]) -> Self:
        """Make a layer that is built as a file's tensors are: see ``WeightLayer``."""
        on_input = parts["on_input"]
        if on_input.numel() != 1:
            raise AdapterError("on_input must be one number")
        return cls(target, on_input=bool(on_input))

    def product(self) -> Tensor:
        """Raise ``AssertionError``: what is added depends on the target's weight."""
        raise AssertionError("(IA)3 adds nothing of its own")

    def addition(self, weight: Tensor) -> Tensor:
        """Return what makes of the target's weight the adapted one, in its shape, in float32."""
        shape = [1] * weight.ndim
        shape[self._axis] = -1
        return weight.float() * self.weight.float().reshape(shape)
