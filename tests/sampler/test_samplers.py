"""Samplers meet closed forms, their order of convergence, and one another."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sd_sampler import (
    SAMPLERS,
    DDIMOptions,
    NoiseSchedule,
    NoiseSource,
    Sampler,
    SamplerError,
    ddim,
    ddim_inversion,
    ddpm,
    ddpm_large,
    deis,
    dpm2,
    dpm2_ancestral,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_2s_ancestral,
    dpmpp_3m_sde,
    dpmpp_sde,
    er_sde,
    euler,
    euler_ancestral,
    heun,
    lcm,
    lms,
    make_sigmas,
    plms,
    restart,
    tcd,
    unipc,
)
from tests.sampler.closed_forms import (
    MEAN,
    STD,
    gaussian,
    gaussian_flow,
    random_x,
    standard,
    variance_after,
    wavy,
)

SCHEDULE = NoiseSchedule.scaled_linear()
RUNS = [entry.run for entry in SAMPLERS.values()]


def without_noise(sampler: Sampler) -> Sampler:
    """Set eta to 0, where the SDE is the ODE."""
    return partial(sampler, eta=0.0)


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (ddim, 1),
        (euler, 1),
        (dpmpp_2m, 2),
        (heun, 2),
        (dpm2, 2),
        (deis, 2),
        (unipc, 2),
        (without_noise(dpmpp_2s_ancestral), 2),
        (without_noise(dpmpp_sde), 2),
        (without_noise(dpmpp_2m_sde), 2),
        (without_noise(dpmpp_3m_sde), 2),  # its first step is of first order
        (lms, 2),  # as here
        (partial(er_sde, eta=0.0, order=1), 1),
        (partial(er_sde, eta=0.0, order=2), 2),
        (without_noise(er_sde), 2),  # and here
    ],
)
def test_the_error_falls_with_the_order_of_the_method(sampler: Sampler, order: int) -> None:
    x = random_x(16, 3) * 10
    errors = []
    for num_steps in (40, 80, 160):
        sigmas = torch.logspace(1, -1, num_steps + 1, dtype=torch.float64)
        out = sampler(gaussian, x, sigmas)
        errors.append(float((out - gaussian_flow(x, 10, 0.1)).abs().max()))
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) >= order - 0.15


@pytest.mark.parametrize(("sampler", "tolerance"), [(euler, 0.15), (dpmpp_2m, 0.02)])
def test_twenty_karras_steps_nearly_solve_a_gaussian(sampler: Sampler, tolerance: float) -> None:
    sigmas = make_sigmas("karras", SCHEDULE, 20)
    x = random_x(64, 3) * float(sigmas[0])
    exact = gaussian_flow(x, float(sigmas[0]), 0.0)
    torch.testing.assert_close(sampler(gaussian, x, sigmas), exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "sampler",
    [
        ddpm,
        euler_ancestral,
        ddpm_large,
        dpm2_ancestral,
        dpmpp_2s_ancestral,
        dpmpp_sde,
        dpmpp_2m_sde,
        dpmpp_3m_sde,
        er_sde,
        restart,
    ],
)
def test_ancestral_sampling_draws_from_the_data(sampler: Sampler) -> None:
    sigmas = make_sigmas("leading", SCHEDULE, 500)
    noise = NoiseSource([0], (4000, 1), dtype=torch.float64)

    def draw() -> Tensor:
        return noise()[0]

    out = sampler(gaussian, noise.initial()[0] * float(sigmas[0]), sigmas, noise=draw)
    assert float(out.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(out.std()) == pytest.approx(STD, abs=0.03)


def zero(x: Tensor, _sigma: Tensor) -> Tensor:
    return torch.zeros_like(x)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_keeps_the_marginals_of_a_point_at_any_eta(eta: float) -> None:
    # arXiv 2010.02502, lemma 1: whatever eta, q(x_t | x0) is the same.
    sigmas = make_sigmas("trailing", SCHEDULE, 10)[:-1]

    def sampler(denoise, x, sigmas, *, noise) -> Tensor:
        return ddim(denoise, x, sigmas, options=DDIMOptions(eta=eta), noise=noise)

    variance = variance_after(sampler, zero, sigmas, float(sigmas[0]) ** 2)
    assert variance == pytest.approx(float(sigmas[-1]) ** 2)


def test_the_small_variance_is_exact_for_a_point_and_the_large_for_a_standard_normal() -> None:
    # arXiv 2006.11239, section 3.2 states both; ten steps suffice, for exact is exact.
    sigmas = make_sigmas("trailing", SCHEDULE, 10)[:-1]
    first, last = float(sigmas[0]) ** 2, float(sigmas[-1]) ** 2
    assert variance_after(ddpm, zero, sigmas, first) == pytest.approx(last)
    assert variance_after(ddpm_large, standard, sigmas, 1 + first) == pytest.approx(1 + last)
    assert variance_after(ddpm, standard, sigmas, 1 + first) < 0.9 * (1 + last)


def test_ddim_without_noise_is_eulers_method() -> None:
    sigmas = make_sigmas("karras", SCHEDULE, 15)
    x = textbook = random_x(4, 3) * float(sigmas[0])
    for sigma, following in pairwise(sigmas):
        slope = (textbook - wavy(textbook, sigma.expand(4))) / sigma
        textbook = textbook + (following - sigma) * slope
    torch.testing.assert_close(ddim(wavy, x, sigmas), textbook)
    assert torch.equal(euler(wavy, x, sigmas), ddim(wavy, x, sigmas))


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ddim_with_noise_is_euler_ancestral(eta: float) -> None:
    sigmas = make_sigmas("karras", SCHEDULE, 15)
    source = NoiseSource([0], (4, 3), dtype=torch.float64)
    x = textbook = source.initial()[0] * float(sigmas[0])
    for sigma, following in pairwise(sigmas):
        up = eta * (following**2 * (sigma**2 - following**2) / sigma**2).sqrt()
        down = (following**2 - up**2).sqrt()
        slope = (textbook - wavy(textbook, sigma.expand(4))) / sigma
        textbook = textbook + (down - sigma) * slope + up * source()[0]
    source.initial()
    out = ddim(wavy, x, sigmas, options=DDIMOptions(eta=eta), noise=lambda: source()[0])
    torch.testing.assert_close(out, textbook)
    source.initial()
    ancestral = euler_ancestral(wavy, x, sigmas, eta=eta, noise=lambda: source()[0])
    assert torch.equal(ancestral, out)


@pytest.mark.parametrize(("sampler", "large"), [(ddpm, False), (ddpm_large, True)])
def test_ddpm_is_the_posterior_of_the_paper(sampler: Sampler, large: bool) -> None:
    # Equation 7 of arXiv 2006.11239 in its own, variance-preserving coordinates.
    sigmas = make_sigmas("leading", SCHEDULE, 12)
    source = NoiseSource([0], (4, 3), dtype=torch.float64)
    x_t = source.initial()[0]
    x = x_t * (1 + sigmas[0] ** 2).sqrt()
    for sigma, following in pairwise(sigmas):
        a, a_prev = 1 / (1 + sigma**2), 1 / (1 + following**2)
        beta = 1 - a / a_prev
        x0 = wavy(x_t / a.sqrt(), sigma.expand(4))
        mean = a_prev.sqrt() * beta / (1 - a) * x0
        mean = mean + (a / a_prev).sqrt() * (1 - a_prev) / (1 - a) * x_t
        variance = beta if large else (1 - a_prev) / (1 - a) * beta
        x_t = mean + (variance.sqrt() * source()[0] if following > 0 else 0)
    source.initial()
    torch.testing.assert_close(sampler(wavy, x, sigmas, noise=lambda: source()[0]), x_t)


def test_clipping_bounds_x0_but_keeps_the_direction_of_the_noise() -> None:
    sigmas = torch.tensor([2.0, 1.0], dtype=torch.float64)
    x = torch.tensor([[3.0]], dtype=torch.float64)
    out = ddim(lambda x, _: x * 0 + 5, x, sigmas, options=DDIMOptions(clip=1.0))
    assert float(out) == pytest.approx(1.0 + (3.0 - 5.0) / 2.0)


@pytest.mark.parametrize("sampler", RUNS, ids=SAMPLERS)
def test_every_step_is_reported_and_the_last_x_is_the_result(sampler: Sampler) -> None:
    sigmas = make_sigmas("karras", SCHEDULE, 5)
    told: list[tuple[int, float, Tensor, Tensor]] = []

    def note(step: int, sigma: float, x: Tensor, x0: Tensor) -> None:
        told.append((step, sigma, x, x0))

    noise = NoiseSource([1, 2], (3,))
    out = sampler(wavy, noise.initial() * 14.6, sigmas, noise=noise, on_step=note)
    assert [step for step, *_ in told] == [0, 1, 2, 3, 4]
    assert [sigma for _, sigma, *_ in told] == sigmas[:-1].tolist()
    assert torch.equal(told[-1][2], out)
    if sampler not in (lms, plms):  # whose last step extrapolates
        torch.testing.assert_close(told[-1][3], out)
    assert out.dtype == torch.float32


def rational(x: Tensor, sigma: Tensor) -> Tensor:
    """Denoise by sums and quotients alone, whose digits do not hang on their place in memory."""
    return x / (1 + sigma.reshape(-1, *[1] * (x.ndim - 1)) + x * x)


@pytest.mark.parametrize("sampler", RUNS, ids=SAMPLERS)
def test_a_picture_is_the_same_to_the_bit_alone_in_a_batch_and_in_any_order(
    sampler: Sampler,
) -> None:
    sigmas = make_sigmas("karras", SCHEDULE, 24)  # enough for a restart

    def sample(*seeds: int) -> Tensor:
        noise = NoiseSource(seeds, (4, 5, 3))
        return sampler(rational, noise.initial() * 14.6, sigmas, noise=noise)

    batch = sample(4, 5, 6)
    assert torch.equal(sample(5), batch[1:2])
    assert torch.equal(sample(6, 5, 4), batch.flip(0))
    assert torch.equal(sample(6, 9, 4, 8)[::2], batch.flip(0)[::2])


@pytest.mark.parametrize("name", [name for name, entry in SAMPLERS.items() if entry.stochastic])
def test_a_sampler_that_needs_noise_says_so(name: str) -> None:
    with pytest.raises(SamplerError, match="give noise=NoiseSource"):
        SAMPLERS[name].run(zero, torch.ones(1, 1), torch.linspace(3, 0, 25))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_draws_noise_if_its_entry_says_so(name: str) -> None:
    drawn = []

    def noise() -> Tensor:
        drawn.append(1)
        return torch.zeros(1, 1)

    SAMPLERS[name].run(zero, torch.ones(1, 1), torch.linspace(3, 0, 25), noise=noise)
    assert bool(drawn) == SAMPLERS[name].stochastic


@pytest.mark.parametrize("eta", [-0.1, 1.5])
def test_an_eta_out_of_range_is_refused(eta: float) -> None:
    with pytest.raises(SamplerError, match=f"eta {eta} is out of range: choose from 0 to 1"):
        DDIMOptions(eta=eta)


def test_a_picture_that_is_inverted_is_drawn_again() -> None:
    sigmas = make_sigmas("leading", SCHEDULE, 500)
    x0 = MEAN + STD * random_x(8, 3)
    up = ddim_inversion(gaussian, x0, sigmas)
    torch.testing.assert_close(ddim(gaussian, up, sigmas), x0, rtol=0, atol=0.02)
    assert float(up.std()) == pytest.approx(float(sigmas[0]), rel=0.4)


def test_a_ladder_that_does_not_descend_to_zero_cannot_be_climbed() -> None:
    for ladder in ([1.0, 2.0, 0.0], [2.0, 1.0], [0.0]):
        with pytest.raises(SamplerError, match="must descend to 0"):
            ddim_inversion(zero, torch.ones(1, 1), torch.tensor(ladder))


def test_a_consistency_sampler_jumps_and_diffuses() -> None:
    sigmas = torch.tensor([4.0, 2.0, 0.0], dtype=torch.float64)
    x, one = torch.full((1, 1), 4.0, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    seen: list[Tensor] = []

    def denoise(x: Tensor, _sigma: Tensor) -> Tensor:
        seen.append(x)
        return x / 2

    assert float(lcm(denoise, x, sigmas, noise=lambda: one)) == pytest.approx((2 + 2) / 2)
    # Down to 1 along the line to 2: 2.5. Up to 2 by sqrt(4 - 1).
    below = torch.tensor([1.0, 0.0])
    tcd(denoise, x, sigmas, below=below, noise=lambda: one)
    assert float(seen[-1]) == pytest.approx(2.5 + 3**0.5)
    assert torch.equal(
        tcd(denoise, x, sigmas, noise=lambda: one), lcm(denoise, x, sigmas, noise=lambda: one)
    )


def test_plms_is_exact_for_a_slope_that_is_a_cubic_of_the_step() -> None:
    # Adams-Bashforth of order 4 on equal steps; the levels before are made exact by the slope.
    sigmas = torch.linspace(8, 0, 9, dtype=torch.float64)

    def slope(sigma: float) -> float:
        return 1.0 + sigma - 0.3 * sigma**2

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return x - sigma[:, None] * slope(float(sigma))

    out = plms(denoise, torch.zeros(1, 1, dtype=torch.float64), sigmas)
    exact = -(8 + 8**2 / 2 - 0.1 * 8**3)
    # The first two steps are of lower order: all that is left is what they miss of the parabola.
    assert float(out) == pytest.approx(exact, abs=0.5)
