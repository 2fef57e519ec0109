"""How far two sets of pictures are apart, by the features that a network sees in them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sd_train.errors import TrainError
from sd_train.seeds import generator_for

_NUM_SUBSETS = 100
_SUBSET_SIZE = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelDistance:
    """The kernel distance: its mean and standard deviation over subsets, and what these were."""

    mean: float
    std: float
    num_subsets: int
    subset_size: int


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Return the Fréchet distance between Gaussians fitted to features (N, D) and (M, D).

    Of Inception's features it is FID (Heusel et al., arXiv 1706.08500, equation 6; Dowson and
    Landau 1982). In float64, with covariances over N - 1. It says too much for few pictures, and
    nothing where a covariance has not full rank: raises TrainError unless N and M exceed D.
    """
    one, other = _checked(first, second)
    num_features = one.shape[1]
    check_enough(len(one), len(other), num_features)
    mean = (one.mean(0) - other.mean(0)).square().sum()
    covariance, other_covariance = one.T.cov(), other.T.cov()
    if num_features == 1:
        covariance, other_covariance = covariance.reshape(1, 1), other_covariance.reshape(1, 1)
    # tr sqrt(A B) is that of sqrt(A) B sqrt(A), which is symmetric: real, and quick to take apart.
    root = _square_root(covariance)
    both = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp(min=0).sqrt().sum()
    return float(mean + covariance.trace() + other_covariance.trace() - 2 * both)


def kernel_distance(first: Tensor, second: Tensor, *, seed: int) -> KernelDistance:
    """Return the squared maximum mean discrepancy of features (N, D) and (M, D), unbiased.

    Of Inception's features it is KID (Bińkowski et al., arXiv 1801.01401, section 4): the kernel is
    (x . y / D + 1)^3, and the mean is over 100 subsets of 1000 pictures, drawn by `seed`, or one of
    all where there are fewer. Raises TrainError for fewer than two pictures.
    """
    one, other = _checked(first, second)
    size = min(_SUBSET_SIZE, len(one), len(other))
    if size < 2:
        raise TrainError(
            f"KID needs two pictures or more of each kind, but {len(one)} drawn and {len(other)} "
            "real ones are there; give more"
        )
    num_subsets = 1 if size == len(one) == len(other) else _NUM_SUBSETS
    found = []
    for number in range(num_subsets):
        generator = generator_for(seed, "kid", number)
        chosen = [
            features[torch.randperm(len(features), generator=generator)[:size]]
            for features in (one, other)
        ]
        found.append(_discrepancy(chosen[0], chosen[1]))
    values = torch.stack(found)
    return KernelDistance(
        mean=float(values.mean()),
        std=float(values.std(correction=0)),
        num_subsets=num_subsets,
        subset_size=size,
    )


def check_enough(num_drawn: int, num_real: int, num_features: int) -> None:
    """Raise TrainError unless there are more pictures of each kind than features of each."""
    if min(num_drawn, num_real) <= num_features:
        raise TrainError(
            f"FID of {num_features} features needs more than {num_features} pictures of each kind, "
            f"but {num_drawn} drawn and {num_real} real ones are there; give more, or leave fid "
            "out of the measures: kid needs few"
        )


def _discrepancy(one: Tensor, other: Tensor) -> Tensor:
    """Return the unbiased estimate of features (N, D) each: no picture is compared with itself."""
    count = len(one)
    within = sum(_kernel(each, each).fill_diagonal_(0).sum() for each in (one, other))
    return within / (count * (count - 1)) - 2 * _kernel(one, other).mean()


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    return (one @ other.T / one.shape[1] + 1) ** 3


def _square_root(matrix: Tensor) -> Tensor:
    """Return the root of a matrix (D, D) that is symmetric and has no negative eigenvalue."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return root


def _checked(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    for features in (first, second):
        if features.ndim != 2:
            raise TrainError(
                f"features have shape {tuple(features.shape)}; they must be (pictures, features)"
            )
    if first.shape[1] != second.shape[1]:
        raise TrainError(
            f"pictures with {first.shape[1]} and {second.shape[1]} features cannot be compared; "
            "take them from one network"
        )
    return first.double(), second.double()
