"""3x3 convolutions by Winograd in this package's own kernel on CPUs (`winograd.c`)."""

import ctypes

import torch
from torch import Tensor

from sd_ops.native.library import kernels, library, place

__all__ = ["convolve_natively", "may_convolve_natively"]

_NAME = "winograd"
_LANES, _PANEL = 16, 32
_TYPES = (torch.float32, torch.bfloat16)
_NAMES = ("images", "height", "width", "channels", "outputs", "padding", "turned", "threads")


class _Sizes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_long) for name in _NAMES)


def may_convolve_natively(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, added: Tensor | None = None
) -> bool:
    """Tell whether `convolve_natively` takes these: plain tensors, and a kernel for their sizes.

    The first question on a machine compiles it.
    """
    outputs, channels = weight.shape[:2]
    plain = [part for part in (x, weight, bias, added) if part is not None]
    return (
        x.dtype in _TYPES
        and all(type(part) in (Tensor, torch.nn.Parameter) for part in plain)
        and all(part.dtype == x.dtype and part.device.type == "cpu" for part in plain)
        and weight.shape[2:] == (3, 3)
        and channels % _LANES == 0
        and outputs % _PANEL == 0
        and (bias is None or bias.is_contiguous())
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch._C._get_tracing_state()  # which would take the result for a constant
        and not isinstance(library(_NAME, x.dtype), str)
    )


def convolve_natively(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: int,
    *,
    turned: bool = False,
    added: Tensor | None = None,
) -> Tensor:
    """Convolve x (B, C, H, W) as `sd_ops.winograd.conv_winograd` does, in channels_last.

    A kernel is copied where it is not in channels_last, or one that is ``turned`` not the transpose
    of one that is. What is ``added`` has the result's shape and is in channels_last; it is added
    before the result is rounded.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    rows = (weight.transpose(0, 1) if turned else weight).contiguous(
        memory_format=torch.channels_last
    )
    height, width = (side + 2 * padding - 2 for side in x.shape[2:])
    out = torch.empty(
        (len(x), len(weight), height, width), dtype=x.dtype, memory_format=torch.channels_last
    )
    sizes = _Sizes(
        len(x), *x.shape[2:], x.shape[1], len(weight), padding, turned, torch.get_num_threads()
    )
    if kernels(_NAME, x.dtype).convolve(*map(place, (out, x, rows, bias, added)), sizes):
        raise MemoryError("no memory for the tiles of a convolution: use a smaller size")
    return out
