"""Linear layers and convolutions that take the best path of the machine when they may.

`use_fast_paths` says that they may. Everything here gives the numbers of torch's own layers to
rounding, and leaves state dicts, hooks and gradients as they are.

The limits below are measured (`python benchmarks/layers.py`), on two AVX-512 cores of an EPYC:
GFLOP/s of SD 1.5's shapes at 512 x 512, two samples.

- float32, of 235 at most: `F.linear` 110 to 165, the same as a 1x1 convolution 185 to 210. 3x3
  convolutions 210, by Winograd 400 at 64 x 64 and 530 at 32 x 32 of those that are counted.
- bfloat16, of 470: `F.linear` 330 at 2,048 tokens and more, as a convolution 400; with fewer tokens
  and many channels it is the other way round.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_ops.winograd import conv_winograd, num_tiles, winograd_weight

__all__ = ["Conv2d", "Linear", "use_fast_paths"]

# For a linear layer as a convolution: fewer are too little work to be worth it.
_MIN_TOKENS = {torch.float32: 64, torch.bfloat16: 2048}
_MIN_TILES, _MIN_CHANNELS = 128, 64  # for Winograd
_MIN_TILES_TO_FORGET = 256  # where transforming the kernel again is a tenth of the work, or less


class Linear(nn.Linear):
    """`nn.Linear` with a fast path on CPUs."""

    fast = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., O)."""
        if not self.fast or not _may(x, self.weight):
            return F.linear(x, self.weight, self.bias)
        num_tokens = x.numel() // x.shape[-1]
        if num_tokens < _MIN_TOKENS.get(x.dtype, num_tokens + 1):
            return F.linear(x, self.weight, self.bias)
        picture = x.reshape(1, 1, num_tokens, x.shape[-1]).permute(0, 3, 1, 2)
        out = F.conv2d(picture, self.weight[:, :, None, None], self.bias)
        return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` with a fast path on CPUs, whose results are in channels_last."""

    fast = False
    _transformed: tuple[object, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, O, H', W')."""
        if not self.fast or not _may(x, self.weight):
            return super().forward(x)
        x = x.contiguous(memory_format=torch.channels_last)
        if not self._takes_winograd(x):
            return super().forward(x)
        return conv_winograd(x, self._kernel(num_tiles(x.shape)), self.bias, int(self.padding[0]))

    def _takes_winograd(self, x: Tensor) -> bool:
        return (
            x.dtype == torch.float32
            and self.kernel_size == (3, 3)
            and self.stride == self.dilation == (1, 1)
            and self.groups == 1
            and self.padding in ((0, 0), (1, 1))
            and self.padding_mode == "zeros"
            and min(self.in_channels, self.out_channels) >= _MIN_CHANNELS
            and num_tiles(x.shape) >= _MIN_TILES
        )

    def _kernel(self, number: int) -> Tensor:
        """Return the transformed kernel, kept where making it again would take too long.

        It is four times as large as the kernel, so large pictures do without.
        """
        if number >= _MIN_TILES_TO_FORGET or self.weight.is_inference():
            return winograd_weight(self.weight)
        # A kernel that was written to, by an adapter that is fused, is another one.
        key = self.weight.data_ptr(), self.weight._version
        if self._transformed is None or self._transformed[0] != key:
            self._transformed = key, winograd_weight(self.weight)
        return self._transformed[1]


def use_fast_paths(module: nn.Module, fast: bool = True) -> None:
    """Let the layers of a network take their fast paths, where no gradient is wanted, or not.

    What they kept is forgotten.
    """
    for layer in module.modules():
        if isinstance(layer, Linear | Conv2d):
            layer.fast = fast
            if isinstance(layer, Conv2d):
                layer._transformed = None


def _may(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and weight.dtype == x.dtype
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and x.numel() > 0
    )
