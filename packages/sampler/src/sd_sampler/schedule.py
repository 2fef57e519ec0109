"""Noise schedules: how much signal is left at each timestep."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sd_sampler.errors import SamplerError, unknown
from sd_sampler.protocols import like, precise

TERMINAL_ALPHA = 2.0**-24
"""What stands for an alphas_cumprod of 0 in the sigma table, so that sigma is finite there (4096).

diffusers' Euler and DPM-Solver++ schedulers put the same number in their table.
"""


_SMALLEST_ALPHA = 1e-30  # below it sigma, and what is made of it, leaves float32


@dataclass(frozen=True, slots=True, eq=False)
class NoiseSchedule:
    """Hold alphas_cumprod (T,) float64, in [0, 1] and descending; q(x_t | x0) follows from it.

    x_t = sqrt(alphas_cumprod[t]) x0 + sqrt(1 - alphas_cumprod[t]) noise: Ho et al., "Denoising
    Diffusion Probabilistic Models", arXiv 2006.11239, eq. 4. Divided by sqrt(alphas_cumprod) it is
    x = x0 + sigma noise, the variance-exploding form in which the samplers of this package work
    (Karras et al., arXiv 2206.00364, section 2).

    `sigmas` (T,) float64 ascends with t: sqrt((1 - a) / a), with `TERMINAL_ALPHA` for an a of 0.
    Raises `SamplerError` where alphas_cumprod is not a descending table in [0, 1], or is so small
    at its end, and not 0, that sigma would overflow.
    """

    alphas_cumprod: Tensor
    name: str = "custom"
    sigmas: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        table = torch.as_tensor(self.alphas_cumprod).detach().to("cpu", torch.float64)
        descending = table.ndim == 1 and len(table) > 1 and bool((table.diff() < 0).all())
        if not descending or not 0 <= float(table[-1]) < float(table[0]) < 1:
            raise SamplerError(
                f"alphas_cumprod of shape {tuple(table.shape)} must be one strictly descending row"
                " of at least two numbers within [0, 1)"
            )
        if 0 < float(table[-1]) < _SMALLEST_ALPHA:
            raise SamplerError(
                f"alphas_cumprod falls to {float(table[-1]):.1e}, below {_SMALLEST_ALPHA}; "
                "choose smaller betas, or 0 at the end by zero terminal SNR"
            )
        object.__setattr__(self, "alphas_cumprod", table)
        object.__setattr__(self, "sigmas", sigmas_of(table, TERMINAL_ALPHA))

    @classmethod
    def from_betas(cls, betas: Tensor, name: str = "custom") -> "NoiseSchedule":
        """Accumulate betas (T,), the variance each step adds (arXiv 2006.11239, eq. 2)."""
        return cls((1.0 - betas.to(torch.float64)).cumprod(0), name)

    @classmethod
    def linear(
        cls, num_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> "NoiseSchedule":
        """Space betas evenly (arXiv 2006.11239, section 4)."""
        return cls.from_betas(_ramp(beta_start, beta_end, num_timesteps), "linear")

    @classmethod
    def scaled_linear(
        cls, num_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
    ) -> "NoiseSchedule":
        """Space the square roots of betas evenly (Rombach et al., arXiv 2112.10752)."""
        roots = _ramp(math.sqrt(beta_start), math.sqrt(beta_end), num_timesteps)
        return cls.from_betas(roots**2, "scaled_linear")

    @classmethod
    def cosine(
        cls, num_timesteps: int = 1000, offset: float = 0.008, max_beta: float = 0.999
    ) -> "NoiseSchedule":
        """Let alphas_cumprod follow a squared cosine; betas stay at most `max_beta`.

        Nichol and Dhariwal, "Improved DDPM", arXiv 2102.09672, eq. 17; "squaredcos_cap_v2" in
        diffusers.
        """
        progress = _ramp(0.0, 1.0, num_timesteps + 1)
        curve = torch.cos((progress + offset) / (1 + offset) * math.pi / 2) ** 2
        return cls.from_betas((1 - curve[1:] / curve[:-1]).clamp(max=max_beta), "cosine")

    @classmethod
    def sigmoid(
        cls, num_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> "NoiseSchedule":
        """Let betas follow a sigmoid over [-6, 6] (GeoDiff, Xu et al., arXiv 2203.02923).

        It is what diffusers names "sigmoid", not the sigmoid of alphas_cumprod of arXiv 2212.11972.
        """
        betas = torch.sigmoid(_ramp(-6.0, 6.0, num_timesteps)) * (beta_end - beta_start)
        return cls.from_betas(betas + beta_start, "sigmoid")

    def rescaled_zero_terminal_snr(self) -> "NoiseSchedule":
        """Shift and scale sqrt(alphas_cumprod) so that the last is exactly 0, the first unchanged.

        Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed",
        arXiv 2305.08891, algorithm 1. `add_noise` is then exact (pure noise at the last timestep);
        `sigmas` is finite through `TERMINAL_ALPHA`. Such a model must predict v or x0: eps says
        nothing about x0 where there is no signal.
        """
        roots = self.alphas_cumprod.sqrt()
        roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
        return NoiseSchedule(roots**2, self.name)

    @property
    def num_timesteps(self) -> int:
        """Number of training timesteps T."""
        return len(self.alphas_cumprod)

    @property
    def span(self) -> tuple[float, float]:
        """The lowest and the highest level, between which karras and its like are."""
        return float(self.sigmas[0]), float(self.sigmas[-1])

    @property
    def betas(self) -> Tensor:
        """Variance (T,) that each step adds: 1 - alphas_cumprod[t] / alphas_cumprod[t - 1]."""
        previous = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])
        return 1 - self.alphas_cumprod / previous

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Diffuse x0 (B, ...) to integer timesteps (B,) in one step (arXiv 2006.11239, eq. 4).

        The result is variance preserving: it is what the network takes.
        """
        device = timesteps.device
        alpha = self.alphas_cumprod.to(device, precise(device))[timesteps]
        return like(alpha.sqrt(), x0) * x0 + like((1 - alpha).sqrt(), x0) * noise

    def timestep_of(self, sigma: Tensor) -> Tensor:
        """Return the timestep in [0, T - 1] at which the noise level is sigma.

        Linear in log sigma between timesteps, clamped at both ends.
        """
        dtype = precise(sigma.device)
        table = self.sigmas.log().to(sigma.device, dtype)
        wanted = sigma.to(dtype).log()
        low = (torch.searchsorted(table, wanted, right=True) - 1).clamp(0, len(table) - 2)
        part = (wanted - table[low]) / (table[low + 1] - table[low])
        return low + part.clamp(0, 1)

    def sigma_of(self, timestep: Tensor) -> Tensor:
        """Return the noise level at a timestep in [0, T - 1]: undoes `timestep_of`."""
        dtype = precise(timestep.device)
        table = self.sigmas.log().to(timestep.device, dtype)
        wanted = timestep.to(dtype).clamp(0, len(table) - 1)
        low = wanted.floor().long().clamp(max=len(table) - 2)
        return torch.lerp(table[low], table[low + 1], wanted - low).exp()


SCHEDULES: dict[str, Callable[..., NoiseSchedule]] = {
    "linear": NoiseSchedule.linear,
    "scaled_linear": NoiseSchedule.scaled_linear,
    "cosine": NoiseSchedule.cosine,
    "sigmoid": NoiseSchedule.sigmoid,
}


def noise_schedule(name: str, num_timesteps: int = 1000) -> NoiseSchedule:
    """Make a schedule by name with its usual betas; raises `SamplerError` listing the names."""
    if name not in SCHEDULES:
        raise unknown("noise schedule", name, SCHEDULES)
    return SCHEDULES[name](num_timesteps)


def sigmas_of(alphas_cumprod: Tensor, terminal: float) -> Tensor:
    """Return sqrt((1 - a) / a) with a = alphas_cumprod, or `terminal` where that is 0."""
    alpha = alphas_cumprod.where(alphas_cumprod > 0, min(terminal, float(alphas_cumprod[-2]) / 2))
    return ((1 - alpha) / alpha).sqrt()


def _ramp(start: float, end: float, count: int) -> Tensor:
    if count < 2:
        raise SamplerError(f"num_timesteps {count} is too few: a noise schedule needs 2 or more")
    return torch.linspace(start, end, count, dtype=torch.float64)
