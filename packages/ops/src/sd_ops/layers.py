"""Linear layers and convolutions that take the best path of the machine when they may.

`use_fast_paths` says that they may. Everything here gives the numbers of torch's own layers to
rounding, and leaves state dicts, hooks and gradients as they are.

From what sizes on which path is taken is told by `sd_ops.limits`, for the processor at hand.

A kernel is turned to channels_last at its first use. oneDNN would turn it at every call: SD 1.5's
step spent a twentieth of its time on that.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_ops.cast_again import autocast_dtype, cast_convolution, cast_linear
from sd_ops.convolutions import frozen_convolution, winograd_convolution
from sd_ops.fused_bias import linear_fused, may_fuse_bias
from sd_ops.int8 import int8_values
from sd_ops.limits import limits
from sd_ops.native.linear import PANEL, linear_natively, map_and_learn, may_map_natively
from sd_ops.native.winograd import convolve_natively, may_convolve_natively
from sd_ops.tokenwise import Tokenwise
from sd_ops.unfolded import conv_unfolded, num_pixels
from sd_ops.winograd import conv_winograd, num_tiles

__all__ = ["Conv2d", "Linear", "lay_out_kernels", "use_fast_paths"]

_MIN_CHANNELS = 64


class Linear(nn.Linear):
    """`nn.Linear` with a fast path on CPUs."""

    fast = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., O)."""
        weight = self.weight  # asked for once: one that is held as int8 is made anew each time
        if self.fast and (dtype := autocast_dtype(x, weight)):
            return cast_linear(x, weight, self.bias, dtype)
        if not self.fast or not _may(x, weight):
            return F.linear(x, weight, self.bias)
        num_tokens, learns = x.numel() // x.shape[-1], torch.is_grad_enabled()
        known, frozen = limits(x.dtype), _is_frozen(weight, self.bias)
        if (frozen or not learns) and may_map_natively(x, weight, self.bias):
            return (map_and_learn if learns else linear_natively)(x, weight, self.bias)
        if num_tokens >= known.min_tokens_to_fuse and may_fuse_bias(self.bias):
            return linear_fused(x, weight, self.bias)
        if num_tokens < (known.min_tokens_to_learn if learns else known.min_tokens):
            return F.linear(x, weight, self.bias)
        picture = x.reshape(1, 1, num_tokens, x.shape[-1]).permute(0, 3, 1, 2)
        kernel = weight[:, :, None, None]
        if learns and frozen:
            out = frozen_convolution(picture, kernel, self.bias)
        else:
            out = F.conv2d(picture, kernel, self.bias)
        return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)

    def with_shortcut(self, x: Tensor, *, shortcut: Tensor) -> Tensor | None:
        """Return `shortcut` + the result within the product, or None where that is not best."""
        if not (self.fast and _may_fuse(x)) or shortcut.shape[:-1] != x.shape[:-1]:
            return None
        weight, bias = self.weight, self.bias
        if _may(x, weight) and may_map_natively(x, weight, bias, added=shortcut):
            return linear_natively(x, weight, bias, added=shortcut)
        return None

    def gated(self, x: Tensor) -> Tensor | None:
        """Return `sd_ops.geglu` of the result by our own kernel, or None where it is not best."""
        if not (self.fast and _may_fuse(x)) or self.out_features % (2 * PANEL):
            return None
        weight = self.weight
        if _may(x, weight) and may_map_natively(x, weight, self.bias):
            return linear_natively(x, weight, self.bias, gated=True)
        return None


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` with fast paths on CPUs, whose results are in channels_last."""

    fast = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, O, H', W')."""
        weight = self.weight  # as above
        if self.fast and (dtype := autocast_dtype(x, weight)) and self._is_simple():
            assert not isinstance(self.padding, str)
            return cast_convolution(x, weight, self.bias, dtype, self.stride, self.padding)
        if not self.fast or not _may(x, weight):
            return self._plainly(x, weight)
        x, learns = x.contiguous(memory_format=torch.channels_last), torch.is_grad_enabled()
        weight = self.laid_out(weight)
        if (out := self._natively(x, weight, None)) is not None:
            return out
        if self._is_plain():
            padding = int(self.padding[0])
            if self._takes_winograd(x, weight):
                return _by_winograd(x, weight, self.bias, padding)
            stride = self.stride[0], self.stride[1]
            number = num_pixels(x, self.kernel_size, stride, padding)
            if number <= limits(x.dtype).max_pixels and not learns:
                return _as_one_product(x, weight, self.bias, stride, padding)
        if learns and self._is_simple() and _is_frozen(weight, self.bias):
            assert not isinstance(self.padding, str)
            return frozen_convolution(x, weight, self.bias, self.stride, self.padding)
        return self._plainly(x, weight)

    def with_shortcut(self, x: Tensor, *, shortcut: Tensor) -> Tensor | None:
        """Return `shortcut` + the result by our own kernels, or None where they are not best."""
        if not (self.fast and self._has_work(x)) or torch.is_grad_enabled():
            return None
        assert not isinstance(self.padding, str)
        sides = (
            side + 2 * int(padding) + 1 - kernel
            for side, padding, kernel in zip(
                x.shape[2:], self.padding, self.kernel_size, strict=True
            )
        )
        weight, last = self.weight, torch.channels_last
        if not (
            _may(x, weight)
            and shortcut.shape == (len(x), self.out_channels, *sides)
            and shortcut.is_contiguous(memory_format=last)
        ):
            return None
        return self._natively(x.contiguous(memory_format=last), self.laid_out(weight), shortcut)

    def _natively(self, x: Tensor, weight: Tensor, added: Tensor | None) -> Tensor | None:
        """Convolve by our own kernels, or tell by None that they are not best."""
        if not self._has_work(x):
            return None
        if self._is_linear():
            tokens, matrix = x.permute(0, 2, 3, 1), weight.flatten(1)
            added = None if added is None else added.permute(0, 2, 3, 1)
            if may_map_natively(tokens, matrix, self.bias, added=added):
                if torch.is_grad_enabled():
                    return map_and_learn(tokens, matrix, self.bias).permute(0, 3, 1, 2)
                out = linear_natively(tokens, matrix, self.bias, added=added)
                return out.permute(0, 3, 1, 2)
        elif may_convolve_natively(x, weight, self.bias, added=added):
            return convolve_natively(x, weight, self.bias, int(self.padding[0]), added=added)
        return None

    def _has_work(self, x: Tensor) -> bool:
        """Whether there is enough of it for our own kernels, and they know how to learn it."""
        if torch.compiler.is_compiling():
            return False
        learns = torch.is_grad_enabled()
        if self._is_linear():
            handed_on = not learns or _is_frozen(self.weight, self.bias)
            return handed_on and _has_tokens(x.permute(0, 2, 3, 1))
        if learns:
            return False
        known = limits(x.dtype).min_tiles_natively
        return self._is_plain() and self.stride == (1, 1) and num_tiles(x.shape) >= known

    def _plainly(self, x: Tensor, weight: Tensor) -> Tensor:
        out: Tensor = self._conv_forward(x, weight, self.bias)
        return out

    def laid_out(self, weight: Tensor) -> Tensor:
        """Turn the kernel to channels_last for good and return it; one that learns stays as it is.

        ``weight`` is this layer's, which may be made whole at every use.
        """
        last = torch.channels_last
        if weight.is_contiguous(memory_format=last) or weight.requires_grad:
            return weight
        values = int8_values(self)
        held = weight if values is None else values
        with torch.inference_mode(False):
            held.data = held.data.contiguous(memory_format=last)
        return weight if values is None else self.weight

    def _is_plain(self) -> bool:
        """Whether this is a convolution of the kind that the networks spend their time on."""
        return (
            self.kernel_size == (3, 3)
            and self._is_simple()
            and self.padding in ((0, 0), (1, 1))
            and min(self.in_channels, self.out_channels) >= _MIN_CHANNELS
        )

    def _is_linear(self) -> bool:
        """Whether this maps every pixel by itself."""
        alone = self.kernel_size == (1, 1) and self.stride == (1, 1) and self.padding == (0, 0)
        return alone and self._is_simple()

    def _is_simple(self) -> bool:
        zeros = self.padding_mode == "zeros" and not isinstance(self.padding, str)
        return zeros and self.groups == 1 and self.dilation == (1, 1)

    def _takes_winograd(self, x: Tensor, weight: Tensor) -> bool:
        known, tiles = limits(x.dtype), num_tiles(x.shape)
        if self.stride != (1, 1):
            return False
        if tiles >= (known.min_tiles_to_learn if torch.is_grad_enabled() else known.min_tiles):
            return True
        return tiles >= known.min_tiles_natively and may_convolve_natively(x, weight, self.bias)


def use_fast_paths(module: nn.Module, fast: bool = True) -> None:
    """Let the layers of a network take their fast paths, with gradients and without, or not."""
    for layer in module.modules():
        if isinstance(layer, Linear | Conv2d | Tokenwise):
            layer.fast = fast


def lay_out_kernels(module: nn.Module) -> None:
    """Turn the kernels of a network on the CPU to channels_last now, not at their first use.

    For what runs in memory that is kept: there they would lie among a step's tensors for good, and
    between them nothing large finds room.
    """
    for layer in module.modules():
        if isinstance(layer, Conv2d) and layer.fast and layer.weight.device.type == "cpu":
            layer.laid_out(layer.weight)


def _by_winograd(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    if torch.is_grad_enabled():
        return winograd_convolution(x, weight, bias, padding)
    if torch.compiler.is_compiling():
        from sd_ops.opaque import opaque_winograd

        out: Tensor = opaque_winograd(x, weight, bias, padding)
        return out
    return conv_winograd(x, weight, bias, padding)


def _as_one_product(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: int
) -> Tensor:
    if torch.compiler.is_compiling():
        from sd_ops.opaque import opaque_unfolded

        out: Tensor = opaque_unfolded(x, weight, bias, list(stride), padding)
        return out
    return conv_unfolded(x, weight, bias, stride, padding)


def _may_fuse(x: Tensor) -> bool:
    """Whether there are enough tokens for our own kernel, and nothing learns."""
    return not torch.is_grad_enabled() and _has_tokens(x)


def _has_tokens(x: Tensor) -> bool:
    """Whether there are enough of them for our own kernel."""
    return x.numel() >= limits(x.dtype).min_tokens_natively * x.shape[-1]


def _may(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and weight.dtype == x.dtype
        and (not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") == x.dtype)
        and not (torch.is_grad_enabled() and torch.compiler.is_compiling())
        and x.numel() > 0
    )


def _is_frozen(weight: Tensor, bias: Tensor | None) -> bool:
    return not weight.requires_grad and not (bias is not None and bias.requires_grad)
