"""sd_sampler against k-diffusion: whole runs on shared noise, in float64, to 1e-9 of the range."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor

from sd_sampler import (
    NoiseSchedule,
    Sampler,
    dpm2,
    dpm2_ancestral,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_2s_ancestral,
    dpmpp_3m_sde,
    dpmpp_sde,
    euler,
    euler_ancestral,
    exponential_sigmas,
    heun,
    karras_sigmas,
    lms,
    make_sigmas,
    polyexponential_sigmas,
    restart,
)

SCHEDULE = NoiseSchedule.scaled_linear()
DETERMINISTIC = {
    "sample_euler": euler,
    "sample_heun": heun,
    "sample_dpm_2": dpm2,
    "sample_lms": lms,
    "sample_dpmpp_2m": dpmpp_2m,
}
STOCHASTIC = {
    "sample_euler_ancestral": euler_ancestral,
    "sample_dpm_2_ancestral": dpm2_ancestral,
    "sample_dpmpp_2s_ancestral": dpmpp_2s_ancestral,
    "sample_dpmpp_sde": dpmpp_sde,
    "sample_dpmpp_2m_sde": dpmpp_2m_sde,
    "sample_dpmpp_3m_sde": dpmpp_3m_sde,
}


@pytest.fixture(scope="module")
def theirs() -> ModuleType:
    """Import k_diffusion.sampling without its package, which imports trainers and metrics."""
    spec = importlib.util.find_spec("k_diffusion")
    assert spec is not None
    package = ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations or [])
    sys.modules["k_diffusion"] = package
    return importlib.import_module("k_diffusion.sampling")


def wavy(x: Tensor, sigma: Tensor) -> Tensor:
    """Denoise wrongly and nonlinearly, so that two samplers agree only if they are the same."""
    return torch.tanh(2 * x) / (1 + sigma[:, None]) + 0.1 * torch.sin(3 * x)


def draws(seed: int) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(3, 5, dtype=torch.float64, generator=generator)


class Path:
    """The same draws as steps of a Brownian path, asked for by level as k-diffusion asks."""

    def __init__(self, seed: int) -> None:
        self.draw = draws(seed)
        self.start, self.middle, self.first = 0.0, 0.0, torch.zeros(())

    def __call__(self, sigma: Tensor, following: Tensor) -> Tensor:
        now, end = float(sigma), float(following)
        if now != self.start:
            self.start, self.middle, self.first = now, end, self.draw()
            return self.first
        share = (now - self.middle) / (now - end)
        return share**0.5 * self.first + (1 - share) ** 0.5 * self.draw()


def start(sigmas: Tensor) -> Tensor:
    return draws(0)() * sigmas[0]


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("ladder", ["karras", "leading", "exponential"])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_samplers(theirs: ModuleType, name: str, ladder: str, num_steps: int) -> None:
    sigmas = make_sigmas(ladder, SCHEDULE, num_steps)
    ours = DETERMINISTIC[name](wavy, start(sigmas), sigmas)
    peers = getattr(theirs, name)(wavy, start(sigmas), sigmas, disable=True)
    torch.testing.assert_close(ours, peers, rtol=0, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("num_steps", [2, 3, 5, 20])  # its SDE samplers break down at 1
@pytest.mark.parametrize("ladder", ["karras", "leading"])
@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_samplers(
    theirs: ModuleType, name: str, ladder: str, num_steps: int, eta: float
) -> None:
    sigmas = make_sigmas(ladder, SCHEDULE, num_steps)
    sampler: Sampler = STOCHASTIC[name]
    ours = sampler(wavy, start(sigmas), sigmas, noise=draws(1), eta=eta)  # type: ignore[call-arg]
    draw = draws(1)
    asked = Path(1) if name == "sample_dpmpp_sde" else lambda *_: draw()
    peers = getattr(theirs, name)(
        wavy, start(sigmas), sigmas, noise_sampler=asked, eta=eta, disable=True
    )
    torch.testing.assert_close(ours, peers, rtol=0, atol=1e-9)


@pytest.mark.parametrize("num_steps", [1, 2, 10, 33])
def test_ladders_between_two_levels(theirs: ModuleType, num_steps: int) -> None:
    # k-diffusion's are float32.
    for ours, peers in (
        (karras_sigmas(0.03, 14.6, num_steps), theirs.get_sigmas_karras),
        (exponential_sigmas(0.03, 14.6, num_steps), theirs.get_sigmas_exponential),
        (polyexponential_sigmas(0.03, 14.6, num_steps), theirs.get_sigmas_polyexponential),
    ):
        expected = peers(num_steps, 0.03, 14.6)[:-1].double()
        torch.testing.assert_close(ours, expected, rtol=2e-6, atol=0)
    ours = polyexponential_sigmas(0.03, 14.6, num_steps, rho=2.5)
    expected = theirs.get_sigmas_polyexponential(num_steps, 0.03, 14.6, rho=2.5)[:-1].double()
    torch.testing.assert_close(ours, expected, rtol=2e-6, atol=0)


@pytest.fixture
def double_precision() -> Iterator[None]:
    """Let k-diffusion's ladders, which have torch's default type, be float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(
    ("num_steps", "times", "each"), [(20, 1, 9), (35, 1, 9), (36, 2, 9), (60, 2, 15)]
)
def test_restart_is_what_the_web_ui_makes_of_heun(
    theirs: ModuleType, num_steps: int, times: int, each: int
) -> None:
    # k-diffusion has no Restart; the web UI's is Heun's steps along k-diffusion's Karras ladders.
    ends = float(SCHEDULE.sigmas[0]), float(SCHEDULE.sigmas[-1])
    whole = theirs.get_sigmas_karras(num_steps - times * each, *ends)
    bottom, top = (int((whole - level).abs().argmin()) for level in (0.1, 2.0))
    again = theirs.get_sigmas_karras(each + 1, whole[bottom].item(), whole[top].item())[:-1]
    draw = draws(1)
    x = theirs.sample_heun(wavy, start(whole), whole[: bottom + 1], disable=True)
    for _ in range(times):
        x = x + draw() * (whole[top] ** 2 - whole[bottom] ** 2).sqrt()
        x = theirs.sample_heun(wavy, x, again, disable=True)
    x = theirs.sample_heun(wavy, x, whole[bottom:], disable=True)
    sigmas = make_sigmas("karras", SCHEDULE, num_steps)
    ours = restart(wavy, start(sigmas), sigmas, noise=draws(1))
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-9)
