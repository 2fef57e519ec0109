import pytest
import torch
from torch.distributions import Normal, kl_divergence

from sd_vae import DiagonalGaussian


def posterior() -> DiagonalGaussian:
    generator = torch.Generator().manual_seed(0)
    return DiagonalGaussian.from_moments(torch.randn(3, 8, 5, 5, generator=generator))


def test_the_first_half_of_the_channels_is_the_mean() -> None:
    moments = torch.cat([torch.full((1, 4, 2, 2), 3.0), torch.full((1, 4, 2, 2), -2.0)], dim=1)
    gaussian = DiagonalGaussian.from_moments(moments)
    assert (gaussian.mode() == 3.0).all()
    torch.testing.assert_close(gaussian.std, torch.full((1, 4, 2, 2), -1.0).exp())


def test_log_variance_is_clamped_to_minus_30_and_20() -> None:
    moments = torch.tensor([0.0, 0.0, -99.0, 99.0]).reshape(1, 4, 1, 1)
    assert DiagonalGaussian.from_moments(moments).logvar.flatten().tolist() == [-30.0, 20.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_moments_are_worked_with_in_float32(dtype: torch.dtype) -> None:
    gaussian = DiagonalGaussian.from_moments(torch.zeros(1, 4, 1, 1, dtype=dtype))
    assert gaussian.mean.dtype == gaussian.sample().dtype == torch.float32


def test_a_sample_is_mean_plus_std_times_noise() -> None:
    gaussian, noise = posterior(), torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(
        gaussian.sample(noise=noise), gaussian.mean + gaussian.std * noise, atol=0, rtol=0
    )


def test_a_generator_makes_a_sample_repeatable() -> None:
    first, second = (
        posterior().sample(generator=torch.Generator().manual_seed(seed)) for seed in (1, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, posterior().sample(generator=torch.Generator().manual_seed(2)))


def test_many_samples_have_the_mean_and_the_deviation() -> None:
    num = 200_000
    moments = torch.tensor([2.0, -1.0]).reshape(1, 2, 1, 1).expand(num, 2, 1, 1)
    samples = DiagonalGaussian.from_moments(moments).sample(
        generator=torch.Generator().manual_seed(0)
    )
    std = torch.tensor(-0.5).exp().item()
    assert samples.mean().item() == pytest.approx(2.0, abs=5 * std / num**0.5)
    assert samples.std().item() == pytest.approx(std, rel=0.01)


def test_kl_is_that_of_independent_normals_to_the_standard_one() -> None:
    gaussian = posterior()
    exact = kl_divergence(Normal(gaussian.mean, gaussian.std), Normal(0.0, 1.0)).sum((1, 2, 3))
    torch.testing.assert_close(gaussian.kl(), exact)


def test_kl_of_the_standard_normal_is_zero() -> None:
    assert DiagonalGaussian.from_moments(torch.zeros(2, 8, 3, 3)).kl().tolist() == [0.0, 0.0]


def test_nll_is_that_of_independent_normals() -> None:
    gaussian, x = posterior(), torch.randn(3, 4, 5, 5)
    exact = -Normal(gaussian.mean, gaussian.std).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(gaussian.nll(x), exact)


def test_a_sample_carries_gradients_to_mean_and_variance() -> None:
    moments = torch.zeros(1, 2, 1, 1, requires_grad=True)
    DiagonalGaussian.from_moments(moments).sample(noise=torch.full((1, 1, 1, 1), 3.0)).backward()
    assert moments.grad is not None
    assert moments.grad.flatten().tolist() == [1.0, 1.5]
