"""Weights held in eight bits a value, and made whole for the moment in which they are used."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_MOST = 127  # the same on both sides of nought: -128 is not used
_WEIGHT = "weight"
_VALUES, _SCALE = "original0", "original1"  # torch's names of what a parametrization is made of


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return a weight (O, ...) as int8 values and scales (O, 1, ...) in float32.

    Symmetric, one scale an output channel: values times scales are off by half a scale at most
    (Nagel et al., arXiv:2106.08295, sections 2.2 and 2.4).
    """
    wide = weight.detach().float()
    largest = wide.abs().amax(dim=tuple(range(1, wide.ndim)), keepdim=True)
    scale = largest.div_(_MOST).clamp_min_(torch.finfo(torch.float32).tiny)
    return wide.div(scale).round_().clamp_(-_MOST, _MOST).to(torch.int8), scale


def hold_as_int8(module: nn.Module) -> None:
    """Hold the weights of every linear and convolution of a network as `quantized` has them.

    For good, one layer after the other, so that no more than one is there twice; on the meta device
    too. Nothing of the network learns from now on. A layer's ``weight`` is made anew, in the type
    that it had, whenever it is asked for: it can be read, and what is written to it is lost. Hooks
    work as ever; ``int8_keys`` says what becomes of the state dict.
    """
    module.requires_grad_(False)
    for _, layer in list(_layers(module)):
        whole = _Whole(layer.weight.dtype)
        # "unsafe" is what changes types: the values' is not the weight's.
        parametrize.register_parametrization(layer, _WEIGHT, whole, unsafe=True)


def int8_values(layer: nn.Module) -> nn.Parameter | None:
    """Return the int8 values (O, ...) that a layer holds, None where it holds its weight itself."""
    if not parametrize.is_parametrized(layer, _WEIGHT):
        return None
    values = getattr(layer.parametrizations[_WEIGHT], _VALUES)  # type: ignore[index]
    return values if isinstance(values, nn.Parameter) and values.dtype == torch.int8 else None


def int8_keys(module: nn.Module) -> dict[str, tuple[str, str]]:
    """Return the keys of values and scales by the keys of the weights in whose place they are."""
    keys = {}
    for path, layer in _layers(module):
        if int8_values(layer) is not None:
            before = f"{path}." if path else ""
            inner = f"{before}parametrizations.{_WEIGHT}"
            keys[f"{before}{_WEIGHT}"] = (f"{inner}.{_VALUES}", f"{inner}.{_SCALE}")
    return keys


class _Whole(nn.Module):
    """Make a weight of its values and scales: the one place where this is done."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, values: Tensor, scale: Tensor) -> Tensor:
        # In float32, whose scales are not rounded again; one pass each is faster than one mixed.
        return values.float().mul_(scale).to(self.dtype)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return quantized(weight)


def _layers(module: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    for path, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            yield path, layer
