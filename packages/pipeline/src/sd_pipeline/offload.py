"""Networks that are on the accelerator only while they compute."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

_HOME = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class Offload:
    """Say where networks compute, and whether they are in the CPU's memory before and after.

    Then the accelerator holds one of them at a time. What they compute is the same.
    """

    device: torch.device
    active: bool = False

    @contextmanager
    def using(self, network: nn.Module | None) -> Iterator[None]:
        """Have a network on the device while this lasts, whatever ends it; None is none."""
        if not self.active or network is None:
            yield
            return
        try:
            _move(network, self.device)
            yield
        finally:
            _move(network, _HOME)


def _move(network: nn.Module, device: torch.device) -> None:
    # Weights that were made in inference mode could never be written to again.
    with torch.inference_mode(False):
        network.to(device)
