"""The Inception v3 by which FID and KID are measured, up to its 2048 pooled features."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_FEATURES = 2048
SIDE = 299
NUM_CLASSES = 1008
"""Of the network of 2015-12-05; the others have 1000."""

Pair = tuple[int, int]
Chain = Sequence["str | tuple[str, ...]"]
Pooling = Literal["average", "max", "halving"]
_ACROSS: tuple[Pair, Pair] = ((1, 7), (0, 3))  # kernel and padding
_DOWN: tuple[Pair, Pair] = ((7, 1), (3, 0))
_WIDE: tuple[Pair, Pair] = ((1, 3), (0, 1))
_TALL: tuple[Pair, Pair] = ((3, 1), (1, 0))
_SPREAD: tuple[Pair, Pair] = ((3, 3), (1, 1))
_FIVE: tuple[Pair, Pair] = ((5, 5), (2, 2))


class ConvNorm(nn.Module):
    """A convolution, normalised by what was seen in training, and cut at zero."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        shape: tuple[Pair, Pair] = ((1, 1), (0, 0)),
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, shape[0], stride, shape[1], bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.bn.register_buffer("num_batches_tracked", None)  # not in every file, and of no use

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Chains of layers beside a pooling; the last of a chain may be several, side by side."""

    def __init__(
        self, layers: Mapping[str, ConvNorm], chains: Sequence[Chain], pooling: Pooling
    ) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.chains = chains
        self.pooling = pooling

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        found = [self._along(chain, x) for chain in self.chains]
        pooled = _pooled(x, self.pooling)
        if "branch_pool" in self._modules:
            pooled = self.get_submodule("branch_pool")(pooled)
        return torch.cat([*found, pooled], 1)

    def _along(self, chain: Chain, x: Tensor) -> Tensor:
        for names in chain:
            fork = (names,) if isinstance(names, str) else names
            x = torch.cat([self.get_submodule(name)(x) for name in fork], 1)
        return x


def _pooled(x: Tensor, pooling: Pooling) -> Tensor:
    # The port of 2015 leaves the border out of its means, and ends in a maximum.
    match pooling:
        case "average":
            return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        case "max":
            return F.max_pool2d(x, 3, 1, 1)
        case "halving":
            return F.max_pool2d(x, 3, 2)


def _block_35(inputs: int, pooled: int) -> Mixed:
    layers = {
        "branch1x1": ConvNorm(inputs, 64),
        "branch5x5_1": ConvNorm(inputs, 48),
        "branch5x5_2": ConvNorm(48, 64, _FIVE),
        "branch3x3dbl_1": ConvNorm(inputs, 64),
        "branch3x3dbl_2": ConvNorm(64, 96, _SPREAD),
        "branch3x3dbl_3": ConvNorm(96, 96, _SPREAD),
        "branch_pool": ConvNorm(inputs, pooled),
    }
    return Mixed(
        layers, (("branch1x1",), _line("branch5x5", 2), _line("branch3x3dbl", 3)), "average"
    )


def _to_17(inputs: int) -> Mixed:
    layers = {
        "branch3x3": ConvNorm(inputs, 384, ((3, 3), (0, 0)), 2),
        "branch3x3dbl_1": ConvNorm(inputs, 64),
        "branch3x3dbl_2": ConvNorm(64, 96, _SPREAD),
        "branch3x3dbl_3": ConvNorm(96, 96, ((3, 3), (0, 0)), 2),
    }
    return Mixed(layers, (("branch3x3",), _line("branch3x3dbl", 3)), "halving")


def _block_17(width: int) -> Mixed:
    layers = {
        "branch1x1": ConvNorm(768, 192),
        "branch7x7_1": ConvNorm(768, width),
        "branch7x7_2": ConvNorm(width, width, _ACROSS),
        "branch7x7_3": ConvNorm(width, 192, _DOWN),
        "branch7x7dbl_1": ConvNorm(768, width),
        "branch7x7dbl_2": ConvNorm(width, width, _DOWN),
        "branch7x7dbl_3": ConvNorm(width, width, _ACROSS),
        "branch7x7dbl_4": ConvNorm(width, width, _DOWN),
        "branch7x7dbl_5": ConvNorm(width, 192, _ACROSS),
        "branch_pool": ConvNorm(768, 192),
    }
    return Mixed(
        layers, (("branch1x1",), _line("branch7x7", 3), _line("branch7x7dbl", 5)), "average"
    )


def _to_8() -> Mixed:
    layers = {
        "branch3x3_1": ConvNorm(768, 192),
        "branch3x3_2": ConvNorm(192, 320, ((3, 3), (0, 0)), 2),
        "branch7x7x3_1": ConvNorm(768, 192),
        "branch7x7x3_2": ConvNorm(192, 192, _ACROSS),
        "branch7x7x3_3": ConvNorm(192, 192, _DOWN),
        "branch7x7x3_4": ConvNorm(192, 192, ((3, 3), (0, 0)), 2),
    }
    return Mixed(layers, (_line("branch3x3", 2), _line("branch7x7x3", 4)), "halving")


def _block_8(inputs: int, pooling: Pooling) -> Mixed:
    layers = {
        "branch1x1": ConvNorm(inputs, 320),
        "branch3x3_1": ConvNorm(inputs, 384),
        "branch3x3_2a": ConvNorm(384, 384, _WIDE),
        "branch3x3_2b": ConvNorm(384, 384, _TALL),
        "branch3x3dbl_1": ConvNorm(inputs, 448),
        "branch3x3dbl_2": ConvNorm(448, 384, _SPREAD),
        "branch3x3dbl_3a": ConvNorm(384, 384, _WIDE),
        "branch3x3dbl_3b": ConvNorm(384, 384, _TALL),
        "branch_pool": ConvNorm(inputs, 192),
    }
    chains: tuple[Chain, ...] = (
        ("branch1x1",),
        ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b")),
        ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")),
    )
    return Mixed(layers, chains, pooling)


def _line(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_{i + 1}" for i in range(count))


class Inception(nn.Module):
    """Sees 2048 features in pictures (Szegedy et al., arXiv 1512.00567; Heusel et al., 1706.08500).

    Its names are torchvision's, as in the files of the weights of 2015-12-05 ported from
    TensorFlow; the classifier is left out.
    """

    def __init__(self) -> None:
        super().__init__()
        plain: tuple[Pair, Pair] = ((3, 3), (0, 0))
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, plain, 2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, plain)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, _SPREAD)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, plain)
        blocks = {
            "5b": _block_35(192, 32),
            "5c": _block_35(256, 64),
            "5d": _block_35(288, 64),
            "6a": _to_17(288),
            "6b": _block_17(128),
            "6c": _block_17(160),
            "6d": _block_17(160),
            "6e": _block_17(192),
            "7a": _to_8(),
            "7b": _block_8(1280, "average"),
            "7c": _block_8(2048, "max"),
        }
        self.mixed = tuple(f"Mixed_{name}" for name in blocks)
        for name, block in blocks.items():
            self.add_module(f"Mixed_{name}", block)

    def forward(self, images: Tensor) -> Tensor:
        """Map pictures (B, 3, H, W) in [-1, 1] of any size to features (B, 2048)."""
        x = F.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, 2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        for name in self.mixed:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))
