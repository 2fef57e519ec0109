"""Pictures that go on at their other side: convolutions that see round the edge."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch.nn.functional as F
from torch import Tensor, nn

from sd_pipeline.request import Seamless


@contextmanager
def seamless(axes: Seamless, *networks: nn.Module) -> Iterator[None]:
    """Let every padded convolution of some networks take its padding from the other side.

    Along `axes`: x joins left and right, y top and bottom. Afterwards all is as it was.
    """
    with ExitStack() as stack:
        if axes != "none":
            for network in networks:
                for module in network.modules():
                    if isinstance(module, nn.Conv2d) and module.padding != (0, 0):
                        stack.enter_context(_wrapped_round(module, axes))
        yield


@contextmanager
def _wrapped_round(convolution: nn.Conv2d, axes: Seamless) -> Iterator[None]:
    padding = convolution.padding
    above, beside = (int(side) for side in padding)
    modes = ("circular" if axes != "y" else "constant", "circular" if axes != "x" else "constant")

    def pad(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        (x,) = inputs
        x = F.pad(x, (beside, beside, 0, 0), mode=modes[0])
        return (F.pad(x, (0, 0, above, above), mode=modes[1]),)

    handle = convolution.register_forward_pre_hook(pad)
    convolution.padding = (0, 0)
    try:
        yield
    finally:
        convolution.padding = padding
        handle.remove()
