"""Low-rank adaptation: a product of two matrices, or of three in Tucker's form."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from sd_adapters.layer import Hooked, WeightLayer
from sd_adapters.targets import Target


class LoraLayer(WeightLayer):
    """The addition (alpha / rank) B A x to one linear or convolution.

    Hu et al., arXiv:2106.09685, equation 3. A keeps a convolution's kernel and B is 1 x 1. With
    ``tucker`` A is 1 x 1 too, and the kernel stands between them, from rank to rank: the Tucker
    form of FedPara, Hyeon-Woo et al., arXiv:2108.06098, which LyCORIS calls LoCon's.
    """

    marks = frozenset({"lora_down.weight", "lora_up.weight", "lora_mid.weight"})

    def __init__(self, target: Target, rank: int, alpha: float, *, tucker: bool = False) -> None:
        super().__init__(target, rank, alpha)
        self.lora_down: nn.Linear | nn.Conv2d
        self.lora_mid: nn.Conv2d | None = None
        self.lora_up: nn.Linear | nn.Conv2d
        if isinstance(target, nn.Conv2d):
            if tucker:
                self.lora_down = nn.Conv2d(target.in_channels, rank, kernel_size=1, bias=False)
                self.lora_mid = _spatial(target, rank, rank)
            else:
                self.lora_down = _spatial(target, target.in_channels, rank)
            self.lora_up = nn.Conv2d(rank, target.out_channels, kernel_size=1, bias=False)
        else:
            self.lora_down = nn.Linear(target.in_features, rank, bias=False)
            self.lora_up = nn.Linear(rank, target.out_features, bias=False)
        nn.init.zeros_(self.lora_up.weight)

    @classmethod
    def like(cls, target: Target, parts: Mapping[str, Tensor]) -> Self:
        """Make a layer that is built as a file's tensors are: see ``WeightLayer``."""
        down = parts["lora_down.weight"]
        return cls(target, down.shape[0], float(down.shape[0]), tucker="lora_mid.weight" in parts)

    def product(self) -> Tensor:
        """Return B A, in the weight's shape."""
        down, up = self.lora_down.weight.float(), self.lora_up.weight.float()
        if self.lora_mid is not None:
            down = torch.einsum("ij...,jc->ic...", self.lora_mid.weight.float(), down.flatten(1))
        return (up.flatten(1) @ down.flatten(1)).reshape(self.shape)

    def forward(self, x: Tensor, target: Hooked) -> Tensor:
        """Return what is to be added to the target's answer to x, in the layer's precision."""
        if self.dora_scale is not None:
            return super().forward(x, target)
        out: Tensor = self.lora_up(self._hidden(x, 1.0))
        return out

    def added(self, output: Tensor, x: Tensor, target: Hooked, strength: float) -> Tensor:
        """Return the target's answer to x with what is to be added to it, times a strength.

        Scaled while it is narrow; for a linear layer the wide product is summed where it is made.
        """
        if self.dora_scale is not None:
            return super().added(output, x, target, strength)
        hidden = self._hidden(x, strength)
        up = self.lora_up.weight
        same = output.dtype == up.dtype or torch.is_autocast_enabled(output.device.type)
        if not same or output.ndim < 2 or not isinstance(self.lora_up, nn.Linear):
            addition: Tensor = self.lora_up(hidden)
            return output + addition.to(output.dtype)
        summed = torch.addmm(output.flatten(0, -2), hidden.flatten(0, -2), up.t())
        return summed.view(output.shape)

    def _hidden(self, x: Tensor, strength: float) -> Tensor:
        """Return what lies between the matrices, with the scale and a strength in it."""
        hidden: Tensor = self.lora_down(x.to(self.lora_down.weight.dtype))
        if self.lora_mid is not None:
            hidden = self.lora_mid(hidden)
        return hidden * (strength * self.scale)


def _spatial(target: nn.Conv2d, in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return a convolution that moves over the pixels as the target does."""
    return nn.Conv2d(
        in_channels,
        out_channels,
        target.kernel_size,  # type: ignore[arg-type]
        target.stride,  # type: ignore[arg-type]
        target.padding,  # type: ignore[arg-type]
        target.dilation,  # type: ignore[arg-type]
        bias=False,
    )
