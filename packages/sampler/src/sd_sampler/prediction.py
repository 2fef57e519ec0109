"""What a network predicts: the noise, the velocity, the data, or the flow between them."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sd_sampler.errors import unknown
from sd_sampler.protocols import like


class Scalings(NamedTuple):
    """Coefficients (B,) of x0 = c_skip x + c_out F(c_in x) (Karras et al., 2206.00364, eq. 7)."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor


class Prediction(Protocol):
    """Say what F is: how to read x0 from it, and what to train it on."""

    @property
    def name(self) -> str:
        """The short name: eps, v, x0 or flow."""

    @property
    def diffusers_name(self) -> str:
        """The name in a diffusers scheduler's `prediction_type`."""

    def scalings(self, sigma: Tensor) -> Scalings:
        """Return the coefficients at sigma (B,)."""

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Return what F should be (B, ...), for x0 (B, ...), noise (B, ...) and sigma (B,)."""


def _c_in(sigma: Tensor) -> Tensor:
    # x = x0 + sigma noise, scaled back to the variance-preserving x_t that the network was taught.
    return (1 + sigma**2).rsqrt()


@dataclass(frozen=True, slots=True)
class EpsPrediction:
    """F is the noise: x0 = x - sigma F (arXiv 2006.11239, eq. 15, in variance-exploding form)."""

    name: str = "eps"
    diffusers_name: str = "epsilon"

    def scalings(self, sigma: Tensor) -> Scalings:
        """Return the coefficients at sigma (B,)."""
        return Scalings(torch.ones_like(sigma), -sigma, _c_in(sigma))

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        """Return the noise."""
        return noise


@dataclass(frozen=True, slots=True)
class VPrediction:
    """F is v = sqrt(a) noise - sqrt(1 - a) x0, with a = 1 / (1 + sigma^2).

    Salimans and Ho, "Progressive Distillation", arXiv 2202.00512, appendix D.
    """

    name: str = "v"
    diffusers_name: str = "v_prediction"

    def scalings(self, sigma: Tensor) -> Scalings:
        """Return the coefficients at sigma (B,)."""
        c_in = _c_in(sigma)
        return Scalings(c_in**2, -sigma * c_in, c_in)

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Return the velocity."""
        c_in = _c_in(sigma)
        return like(c_in, x0) * noise - like(sigma * c_in, x0) * x0


@dataclass(frozen=True, slots=True)
class X0Prediction:
    """F is x0 itself."""

    name: str = "x0"
    diffusers_name: str = "sample"

    def scalings(self, sigma: Tensor) -> Scalings:
        """Return the coefficients at sigma (B,)."""
        return Scalings(torch.zeros_like(sigma), torch.ones_like(sigma), _c_in(sigma))

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        """Return x0."""
        return x0


@dataclass(frozen=True, slots=True)
class FlowPrediction:
    """F is the flow's velocity noise - x0, seen in x_t = (1 - t) x0 + t noise = x / (1 + sigma).

    Liu et al., "Flow Straight and Fast", arXiv 2209.03003, eq. 1; it goes with a `FlowSchedule`.
    """

    name: str = "flow"
    diffusers_name: str = "flow_prediction"

    def scalings(self, sigma: Tensor) -> Scalings:
        """Return the coefficients at sigma (B,)."""
        c_in = 1 / (1 + sigma)
        return Scalings(c_in, -sigma * c_in, c_in)

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:  # noqa: ARG002
        """Return the velocity, which is the same all along the line."""
        return noise - x0


EPS: Prediction = EpsPrediction()
V: Prediction = VPrediction()
X0: Prediction = X0Prediction()
FLOW: Prediction = FlowPrediction()
PREDICTIONS: tuple[Prediction, ...] = (EPS, V, X0, FLOW)


def prediction(name: str) -> Prediction:
    """Find a prediction by our name or diffusers'; raises `SamplerError` listing the names."""
    for entry in PREDICTIONS:
        if name in (entry.name, entry.diffusers_name):
            return entry
    raise unknown("prediction", name, [entry.name for entry in PREDICTIONS])
