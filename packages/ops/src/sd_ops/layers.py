"""Linear layers and convolutions that take the best path of the machine when they may.

`use_fast_paths` says that they may. Everything here gives the numbers of torch's own layers to
rounding, and leaves state dicts, hooks and gradients as they are.

The limits below are measured (`python benchmarks/layers.py`), on two AVX-512 cores of an EPYC:
GFLOP/s of SD 1.5's shapes at 512 x 512, two samples.

- float32, of 235 at most: `F.linear` 110 to 165, the same as a 1x1 convolution 185 to 210. 3x3
  convolutions 210, by Winograd 400 at 64 x 64, 350 at 32 x 32 and 230 at 16 x 16 of those that are
  counted; at 8 x 8, where reading the kernel takes the time, 90 and as one product 140.
- float32 with gradients, one sample, both ways: linear layers 160 to 195, as convolutions 200 to
  220 from 1,024 tokens on, and no slower at 256. 3x3 convolutions, for the result, x and the
  kernel: 320 channels at 64 x 64 in 35, 36 and 42 ms, by Winograd 25, 25 and 20, the kernel's
  transforms among them; 640 at 32 x 32 in 35, 36 and 40, by Winograd 28 each; at 16 x 16 it is the
  slower one.
- bfloat16, of 515: `F.linear` 330 at 2,048 tokens and more, as a convolution 400; with fewer tokens
  and many channels it is the other way round. 3x3 convolutions 515, at 8 x 8 210 and as one product
  370.

A kernel is turned to channels_last at its first use. oneDNN would turn it at every call: SD 1.5's
step spent a twentieth of its time on that.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_ops.convolutions import frozen_convolution, winograd_convolution
from sd_ops.int8 import int8_values
from sd_ops.unfolded import conv_unfolded, num_pixels
from sd_ops.winograd import conv_winograd, num_tiles

__all__ = ["Conv2d", "Linear", "lay_out_kernels", "use_fast_paths"]

# For a linear layer as a convolution: fewer are too little work to be worth it.
_MIN_TOKENS = {torch.float32: 64, torch.bfloat16: 2048}
_MIN_TOKENS_TO_LEARN = {torch.float32: 256}
_MIN_CHANNELS = 64
# For Winograd: with fewer, transforming the kernel takes too long.
_MIN_TILES, _MIN_TILES_TO_LEARN = 32, 64
_MAX_PIXELS = 256  # for one product


class Linear(nn.Linear):
    """`nn.Linear` with a fast path on CPUs."""

    fast = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., O)."""
        weight = self.weight  # asked for once: one that is held as int8 is made anew each time
        if not self.fast or not _may(x, weight):
            return F.linear(x, weight, self.bias)
        num_tokens, learns = x.numel() // x.shape[-1], torch.is_grad_enabled()
        limits = _MIN_TOKENS_TO_LEARN if learns else _MIN_TOKENS
        if num_tokens < limits.get(x.dtype, num_tokens + 1):
            return F.linear(x, weight, self.bias)
        picture = x.reshape(1, 1, num_tokens, x.shape[-1]).permute(0, 3, 1, 2)
        kernel = weight[:, :, None, None]
        if learns and _is_frozen(weight, self.bias):
            out = frozen_convolution(picture, kernel, self.bias)
        else:
            out = F.conv2d(picture, kernel, self.bias)
        return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` with fast paths on CPUs, whose results are in channels_last."""

    fast = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, O, H', W')."""
        weight = self.weight  # as above
        if not self.fast or not _may(x, weight):
            return self._plainly(x, weight)
        x, learns = x.contiguous(memory_format=torch.channels_last), torch.is_grad_enabled()
        weight = self.laid_out(weight)
        if self._is_plain(weight.dtype):
            padding = int(self.padding[0])
            if self._takes_winograd(x):
                convolve = winograd_convolution if learns else conv_winograd
                return convolve(x, weight, self.bias, padding)
            stride = self.stride[0], self.stride[1]
            few = num_pixels(x, self.kernel_size, stride, padding) <= _MAX_PIXELS
            if few and not learns:
                return conv_unfolded(x, weight, self.bias, stride, padding)
        if learns and self._is_simple() and _is_frozen(weight, self.bias):
            assert not isinstance(self.padding, str)
            return frozen_convolution(x, weight, self.bias, self.stride, self.padding)
        return self._plainly(x, weight)

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

    def _is_plain(self, dtype: torch.dtype) -> bool:
        """Whether this is a convolution of the kind that the networks spend their time on."""
        return (
            dtype in _MIN_TOKENS
            and self.kernel_size == (3, 3)
            and self._is_simple()
            and self.padding in ((0, 0), (1, 1))
            and min(self.in_channels, self.out_channels) >= _MIN_CHANNELS
        )

    def _is_simple(self) -> bool:
        zeros = self.padding_mode == "zeros" and not isinstance(self.padding, str)
        return zeros and self.groups == 1 and self.dilation == (1, 1)

    def _takes_winograd(self, x: Tensor) -> bool:
        enough = _MIN_TILES_TO_LEARN if torch.is_grad_enabled() else _MIN_TILES
        return x.dtype == torch.float32 and self.stride == (1, 1) and num_tiles(x.shape) >= enough


def use_fast_paths(module: nn.Module, fast: bool = True) -> None:
    """Let the layers of a network take their fast paths, with gradients and without, or not."""
    for layer in module.modules():
        if isinstance(layer, Linear | Conv2d):
            layer.fast = fast


def lay_out_kernels(module: nn.Module) -> None:
    """Turn the kernels of a network on the CPU to channels_last now, not at their first use.

    For what runs in memory that is kept: there they would lie among a step's tensors for good, and
    between them nothing large finds room.
    """
    for layer in module.modules():
        if isinstance(layer, Conv2d) and layer.fast and layer.weight.device.type == "cpu":
            layer.laid_out(layer.weight)


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
