"""The joints between samplers, denoisers, networks and noise."""

from collections.abc import MutableMapping
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

# What a device need not be asked for, which would have it finish all that it was given.
_LEVELS: MutableMapping[Tensor, float] = WeakTensorKeyDictionary()


class Network(Protocol):
    """Predict F from variance-preserving input (B, ...) and timesteps (B,) float32."""

    def __call__(self, x: Tensor, timesteps: Tensor, /) -> Tensor:
        """Return F."""


class Denoiser(Protocol):
    """Predict x0 (B, ...) from x = x0 + sigma * noise (B, ...) and sigma (B,).

    Whatever the prediction depends on besides these, such as a text, is closed over.
    """

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Return x0."""


class Noise(Protocol):
    """Draw the next standard normal noise (B, ...) of a batch; `NoiseSource` is one."""

    def __call__(self) -> Tensor:
        """Return the noise."""


class OnStep(Protocol):
    """Be told of a finished step: its number from 0, the sigma it left, the new x, and x0."""

    def __call__(self, step: int, sigma: float, x: Tensor, x0: Tensor, /) -> object:
        """Look on; what is returned is ignored."""


class Sampler(Protocol):
    """Walk x (B, ...) down the ladder sigmas (N + 1,), which descends to 0, and return x0."""

    def __call__(
        self,
        denoise: Denoiser,
        x: Tensor,
        sigmas: Tensor,
        *,
        noise: Noise | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return the sample."""


def batch_sigma(x: Tensor, sigma: float) -> Tensor:
    """Return sigma as (B,) on the device of x, in float32 or, where x is, float64.

    `level_of` knows of it without asking the device.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    values = torch.full((x.shape[0],), sigma, dtype=dtype, device=x.device)
    _LEVELS[values] = sigma
    return values


def known_level(sigma: Tensor) -> float | None:
    """Return what all of sigma (B,) is where `batch_sigma` made it, else None."""
    return _LEVELS.get(sigma)


def level_of(sigma: Tensor) -> float:
    """Return the first of sigma (B,), which are all the same; waits for its device if need be."""
    known = known_level(sigma)
    return float(sigma[0]) if known is None else known


def precise(device: torch.device) -> torch.dtype:
    """Return the dtype to look up tables in: float64, but on a device that lacks it."""
    return torch.float32 if device.type == "mps" else torch.float64


def like(values: Tensor, x: Tensor) -> Tensor:
    """Return values (B,) in the dtype of x (B, ...), shaped to broadcast over it."""
    return values.to(x).reshape(-1, *[1] * (x.ndim - 1))
