"""A difference of weights kept whole, as LyCORIS's "full" and kohya's extractions have it."""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from sd_adapters.adapter import AdapterError
from sd_adapters.layer import WeightLayer
from sd_adapters.targets import Norm, Target


class FullLayer(WeightLayer):
    """The addition of a whole tensor to one target's weight, and of another to its bias.

    Raises ``AdapterError`` where there is one for the bias, and the target has no bias.
    """

    marks = frozenset({"diff", "diff_b"})
    names: ClassVar[tuple[str, str]] = ("diff", "diff_b")

    def __init__(self, target: Target | Norm, *, bias: bool = False) -> None:
        super().__init__(target, rank=None, alpha=None)
        if bias and target.bias is None:
            raise AdapterError("there is an addition to the bias, and the target has no bias")
        addition = nn.Parameter(torch.zeros(self.shape[0])) if bias else None
        self.register_parameter(self.names[0], nn.Parameter(torch.zeros(self.shape)))
        self.register_parameter(self.names[1], addition)

    @classmethod
    def like(cls, target: Target | Norm, parts: Mapping[str, Tensor]) -> Self:
        """Make a layer that is built as a file's tensors are: see ``WeightLayer``."""
        return cls(target, bias=cls.names[1] in parts)

    def product(self) -> Tensor:
        """Return the difference."""
        return self.get_parameter(self.names[0]).float()

    def bias_addition(self) -> Tensor | None:
        """Return what is added to the target's bias (out,), or None."""
        addition = self._parameters[self.names[1]]
        return None if addition is None else addition.float()


class NormLayer(FullLayer):
    """The same for a group or layer norm, under LyCORIS' names."""

    marks = frozenset({"w_norm", "b_norm"})
    names = ("w_norm", "b_norm")
