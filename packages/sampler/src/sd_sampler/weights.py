"""How much each noise level counts in the training loss.

A weight takes sigma (B,) and the prediction and returns (B,), to multiply the squared error of the
network's own output F. Those that are stated for the error of x0 are carried over by c_out^2, for
x0's error is c_out times F's; so min-SNR becomes min(SNR, gamma) / SNR for eps and
min(SNR, gamma) / (SNR + 1) for v. SNR = 1 / sigma^2.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sd_sampler.errors import SamplerError, unknown
from sd_sampler.prediction import Prediction

LossWeight = Callable[[Tensor, Prediction], Tensor]


def _on_x0(weight: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    return weight * prediction.scalings(sigma).c_out ** 2


def uniform(sigma: Tensor, prediction: Prediction) -> Tensor:  # noqa: ARG001
    """Weigh every level of F alike (L_simple, Ho et al., arXiv 2006.11239, eq. 14)."""
    return torch.ones_like(sigma)


def snr(sigma: Tensor, prediction: Prediction) -> Tensor:
    """Weigh the error of x0 by SNR, so that of eps alike (arXiv 2202.00512, section 4)."""
    return _on_x0(sigma**-2, sigma, prediction)


def truncated_snr(sigma: Tensor, prediction: Prediction) -> Tensor:
    """Weigh the error of x0 by max(SNR, 1) (Salimans and Ho, arXiv 2202.00512, section 4)."""
    return _on_x0((sigma**-2).clamp(min=1), sigma, prediction)


def debiased(sigma: Tensor, prediction: Prediction) -> Tensor:
    """Weigh the error of x0 by the root of SNR, so that of eps by 1 / sqrt(SNR).

    Yu et al., "Unmasking Bias in Diffusion Model Training", arXiv 2310.08442, section 3.
    """
    return _on_x0(sigma**-1, sigma, prediction)


def min_snr(gamma: float = 5.0) -> LossWeight:
    """Weigh the error of x0 by min(SNR, gamma).

    Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", arXiv 2303.09556,
    section 3.4. Raises `SamplerError` unless gamma is positive.
    """
    if gamma <= 0:
        raise SamplerError(f"min-SNR gamma {gamma} must be positive; the paper uses 5")

    def weight(sigma: Tensor, prediction: Prediction) -> Tensor:
        return _on_x0((sigma**-2).clamp(max=gamma), sigma, prediction)

    return weight


LOSS_WEIGHTS = ("uniform", "snr", "truncated_snr", "min_snr", "debiased")


def loss_weight(name: str, gamma: float = 5.0) -> LossWeight:
    """Find a weight by name (gamma is for min_snr); raises `SamplerError` listing the names."""
    if name == "min_snr":
        return min_snr(gamma)
    simple: dict[str, LossWeight] = {
        "uniform": uniform,
        "snr": snr,
        "truncated_snr": truncated_snr,
        "debiased": debiased,
    }
    if name not in simple:
        raise unknown("loss weight", name, LOSS_WEIGHTS)
    return simple[name]
