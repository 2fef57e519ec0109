"""FID and KID against numbers that others would find, and the refusals."""

from itertools import permutations

import numpy as np
import pytest
import scipy.linalg
import torch

from sd_train import TrainError
from sd_train.feature_distances import frechet_distance, kernel_distance
from sd_train.seeds import generator_for


def features(count: int, size: int, shift: float = 0.0) -> torch.Tensor:
    generator = generator_for(count, "features", size)
    spread = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return torch.randn(count, size, generator=generator, dtype=torch.float64) @ spread + shift


def test_the_frechet_distance_is_that_of_scipys_matrix_root() -> None:
    one, other = features(90, 12), features(70, 12, 0.5)
    first, second = one.numpy(), other.numpy()
    covariances = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(first.mean(0) - second.mean(0)).sum()
    expected += np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(float(expected), rel=1e-9)
    assert frechet_distance(other, one) == pytest.approx(float(expected), rel=1e-9)


def test_a_set_has_no_frechet_distance_from_itself_and_a_shifted_one_has_the_shifts() -> None:
    one = features(60, 8)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, one + 3) == pytest.approx(8 * 9)


def test_the_frechet_distance_of_one_feature_is_of_means_and_deviations() -> None:
    one, other = features(60, 1), 2 * features(50, 1) + 1
    mean, std = one.mean() - other.mean(), one.std() - other.std()
    assert frechet_distance(one, other) == pytest.approx(float(mean**2 + std**2))


def test_the_kernel_distance_is_the_sum_over_pairs_of_different_pictures() -> None:
    one, other = features(7, 3).numpy(), features(7, 3, 1.0).numpy() * 2
    within = sum(
        (s[i] @ s[j] / 3 + 1) ** 3 for s in (one, other) for i, j in permutations(range(7), 2)
    )
    across = sum((a @ b / 3 + 1) ** 3 for a in one for b in other)
    found = kernel_distance(torch.from_numpy(one), torch.from_numpy(other), seed=0)
    assert found.mean == pytest.approx(within / 42 - 2 * across / 49)
    assert (found.num_subsets, found.subset_size, found.std) == (1, 7, 0.0)


def test_the_kernel_distance_of_equal_distributions_is_nought_but_for_chance() -> None:
    random = generator_for(0, "kid", 7)
    one, other = torch.randn(2, 1500, 4, generator=random)
    found = kernel_distance(one, other, seed=3)
    assert (found.num_subsets, found.subset_size) == (100, 1000)
    assert abs(found.mean) < 0.01
    assert found == kernel_distance(one, other, seed=3)
    assert found != kernel_distance(one, other, seed=4)


def test_too_few_pictures_and_other_features_are_told() -> None:
    with pytest.raises(TrainError, match=r"FID of 12 features needs more than 12 pictures .* 11"):
        frechet_distance(features(11, 12), features(40, 12))
    with pytest.raises(TrainError, match="KID needs two pictures"):
        kernel_distance(features(1, 4), features(9, 4), seed=0)
    with pytest.raises(TrainError, match="with 4 and 5 features cannot be compared"):
        kernel_distance(features(9, 4), features(9, 5), seed=0)
    with pytest.raises(TrainError, match=r"shape \(3, 2, 2\)"):
        frechet_distance(torch.zeros(3, 2, 2), torch.zeros(3, 2, 2))
