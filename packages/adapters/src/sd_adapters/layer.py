"""What one adapter adds to one linear or convolution, whatever its formula."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sd_adapters.adapter import AdapterError
from sd_adapters.targets import Norm, Target

Hooked = nn.Linear | nn.Conv2d | Norm


class WeightLayer(nn.Module, ABC):
    """The addition to one target's weight: (alpha / rank) times a product of small tensors.

    With ``dora_scale`` the sum of weight and addition is then brought to lengths that learn, those
    of its rows (out, 1, ...) or of its columns (1, in, ...), as the shape tells: DoRA, Liu et al.,
    arXiv:2402.09353, equation 5. PEFT and LyCORIS write rows; LyCORIS used to write columns.
    The state dict's keys are those that LyCORIS gives the parts of a layer.
    """

    marks: ClassVar[frozenset[str]]
    """The parts by one of which a file's layer is told to be of this kind."""
    absent_alpha: ClassVar[float] = 1.0
    """What an absent alpha means where there is no rank that it could be."""

    alpha: Tensor | None
    dora_scale: nn.Parameter | None

    def __init__(self, target: Target | Norm, rank: int | None, alpha: float | None) -> None:
        super().__init__()
        if isinstance(target, nn.Conv2d) and (target.groups != 1 or target.padding_mode != "zeros"):
            raise AdapterError("LoRA fits convolutions of one group, padded with zeros, only")
        if rank is not None and rank < 1:
            raise AdapterError(f"LoRA rank {rank} is below 1: give 1 or more")
        self.shape = target.weight.shape
        self.rank = rank
        self.register_buffer("alpha", None if alpha is None else torch.tensor(float(alpha)))
        self.register_parameter("dora_scale", None)

    @classmethod
    @abstractmethod
    def like(cls, target: Target, parts: Mapping[str, Tensor]) -> Self:
        """Make a layer that is built as a file's tensors are; their values are not taken over.

        Raises ``KeyError`` or ``IndexError`` where they are not a whole layer, and ``AdapterError``
        where they do not fit the target.
        """

    @abstractmethod
    def product(self) -> Tensor:
        """Return what is added to the weight but for its scale, in its shape and in float32."""

    @property
    def scale(self) -> Tensor | float:
        """What the product is multiplied by; 1 where there is no rank to speak of."""
        if self.rank is None or self.alpha is None:
            return 1.0
        return self.alpha.float() / self.rank

    def addition(self, weight: Tensor) -> Tensor:
        """Return what makes of the target's weight the adapted one, in its shape, in float32."""
        addition = self.product() * self.scale
        if self.dora_scale is None:
            return addition
        adapted = weight.float() + addition
        # Constant in the backward pass (section 4.3): the gradient hardly changes, memory does.
        lengths = _lengths(adapted.detach(), self.dora_scale.shape)
        return adapted * (self.dora_scale.float() / lengths) - weight.float()

    def added(self, output: Tensor, x: Tensor, target: Hooked, strength: float) -> Tensor:
        """Return the target's answer to x with what is to be added to it, times a strength."""
        addition: Tensor = strength * self(x, target)
        return output + addition.to(output.dtype)

    def bias_addition(self) -> Tensor | None:
        """Return what is added to the target's bias (out,), or None."""
        return None

    def forward(self, x: Tensor, target: Hooked) -> Tensor:
        """Return what is to be added to the target's answer to x, in the layer's precision."""
        weight, bias = self.addition(target.weight), self.bias_addition()
        x = x.to(weight.dtype)
        if isinstance(target, nn.Linear):
            return F.linear(x, weight, bias)
        if isinstance(target, nn.LayerNorm):
            return F.layer_norm(x, target.normalized_shape, weight, bias, target.eps)
        if isinstance(target, nn.GroupNorm):
            return F.group_norm(x, target.num_groups, weight, bias, target.eps)
        assert not isinstance(target.padding, str)
        return F.conv2d(x, weight, bias, target.stride, target.padding, target.dilation)

    @torch.no_grad()
    def decompose(self, weight: Tensor) -> None:
        """Become a DoRA that as yet changes nothing: the lengths are those of the weight's rows."""
        shape = (self.shape[0], *[1] * (len(self.shape) - 1))
        self.dora_scale = nn.Parameter(_lengths(weight.float(), shape))

    def fits(self, target: Target | Norm) -> bool:
        """Tell whether the target has the shape for which the layer was made."""
        return target.weight.shape == self.shape


def _lengths(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the lengths of a weight's rows or columns, whichever have the shape; never 0."""
    along = [axis for axis, size in enumerate(shape) if size == 1]
    lengths: Tensor = torch.linalg.vector_norm(weight, dim=along, keepdim=True)
    return lengths.clamp_min(torch.finfo(torch.float32).tiny)
