"""Linear layers and convolutions that take the best path of the machine when they may.

`use_fast_paths` says that they may. Everything here gives the numbers of torch's own layers to
rounding, and leaves state dicts, hooks and gradients as they are.

The limits below are measured (`python benchmarks/layers.py`), on two AVX-512 cores of an EPYC:
GFLOP/s of SD 1.5's shapes at 512 x 512, two samples.

- float32, of 235 at most: `F.linear` 110 to 165, the same as a 1x1 convolution 185 to 210. 3x3
  convolutions 210, by Winograd 400 at 64 x 64 and 530 at 32 x 32 of those that are counted.
- bfloat16, of 470: `F.linear` 330 at 2,048 tokens and more, as a convolution 400; with fewer tokens
  and many channels it is the other way round.
- float32 with gradients, one sample, both ways: linear layers 160 to 195, as convolutions 200 to
  220 from 1,024 tokens on, and no slower at 256. 3x3 convolutions, for the result, x and the
  kernel: 320 channels at 64 x 64 in 35, 36 and 42 ms, by Winograd 25, 25 and 20, the kernel's
  transforms among them; 640 at 32 x 32 in 35, 36 and 40, by Winograd 28 each; at 16 x 16 it is the
  slower one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_ops.convolutions import frozen_convolution, winograd_convolution
from sd_ops.winograd import conv_winograd, num_tiles, winograd_weight

__all__ = ["Conv2d", "Linear", "use_fast_paths"]

# For a linear layer as a convolution: fewer are too little work to be worth it.
_MIN_TOKENS = {torch.float32: 64, torch.bfloat16: 2048}
_MIN_TOKENS_TO_LEARN = {torch.float32: 256}
_MIN_TILES, _MIN_CHANNELS = 128, 64  # for Winograd
_MIN_TILES_TO_LEARN = 64
_MIN_TILES_TO_FORGET = 256  # where transforming the kernel again is a tenth of the work, or less


class Linear(nn.Linear):
    """`nn.Linear` with a fast path on CPUs."""

    fast = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., O)."""
        if not self.fast or not _may(x, self.weight):
            return F.linear(x, self.weight, self.bias)
        num_tokens, learns = x.numel() // x.shape[-1], torch.is_grad_enabled()
        limits = _MIN_TOKENS_TO_LEARN if learns else _MIN_TOKENS
        if num_tokens < limits.get(x.dtype, num_tokens + 1):
            return F.linear(x, self.weight, self.bias)
        picture = x.reshape(1, 1, num_tokens, x.shape[-1]).permute(0, 3, 1, 2)
        kernel = self.weight[:, :, None, None]
        if learns and _is_frozen(self):
            out = frozen_convolution(picture, kernel, self.bias)
        else:
            out = F.conv2d(picture, kernel, self.bias)
        return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` with a fast path on CPUs, whose results are in channels_last."""

    fast = False
    keeps = True
    _transformed: tuple[object, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, O, H', W')."""
        if not self.fast or not _may(x, self.weight):
            return super().forward(x)
        x, learns = x.contiguous(memory_format=torch.channels_last), torch.is_grad_enabled()
        if not self._takes_winograd(x):
            if learns and self._is_simple() and _is_frozen(self):
                stride, padding = self.stride, self.padding
                assert not isinstance(padding, str)
                return frozen_convolution(x, self.weight, self.bias, stride, padding)
            return super().forward(x)
        if learns:
            return winograd_convolution(x, self.weight, self.bias, int(self.padding[0]))
        return conv_winograd(x, self._kernel(num_tiles(x.shape)), self.bias, int(self.padding[0]))

    def _takes_winograd(self, x: Tensor) -> bool:
        return (
            x.dtype == torch.float32
            and self.kernel_size == (3, 3)
            and self.stride == (1, 1)
            and self._is_simple()
            and self.padding in ((0, 0), (1, 1))
            and min(self.in_channels, self.out_channels) >= _MIN_CHANNELS
            and num_tiles(x.shape)
            >= (_MIN_TILES_TO_LEARN if torch.is_grad_enabled() else _MIN_TILES)
        )

    def _is_simple(self) -> bool:
        zeros = self.padding_mode == "zeros" and not isinstance(self.padding, str)
        return zeros and self.groups == 1 and self.dilation == (1, 1)

    def _kernel(self, number: int) -> Tensor:
        """Return the transformed kernel, kept where making it again would take too long.

        It is four times as large as the kernel, so large pictures do without.
        """
        if number >= _MIN_TILES_TO_FORGET or self.weight.is_inference() or not self.keeps:
            return winograd_weight(self.weight)
        # A kernel that was written to, by an adapter that is fused, is another one.
        key = self.weight.data_ptr(), self.weight._version
        if self._transformed is None or self._transformed[0] != key:
            self._transformed = key, winograd_weight(self.weight)
        return self._transformed[1]


def use_fast_paths(module: nn.Module, fast: bool = True, *, keep: bool = True) -> None:
    """Let the layers of a network take their fast paths, with gradients and without, or not.

    What they kept is forgotten; without `keep`, for networks that learn, they keep nothing anew.
    """
    for layer in module.modules():
        if isinstance(layer, Linear | Conv2d):
            layer.fast = fast
            if isinstance(layer, Conv2d):
                layer.keeps = keep
                layer._transformed = None


def _may(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and weight.dtype == x.dtype
        and (not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") == x.dtype)
        and not (torch.is_grad_enabled() and torch.compiler.is_compiling())
        and x.numel() > 0
    )


def _is_frozen(layer: nn.Linear | nn.Conv2d) -> bool:
    bias_learns = layer.bias is not None and layer.bias.requires_grad
    return not layer.weight.requires_grad and not bias_learns
