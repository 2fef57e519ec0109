"""DDIM, which is also DDPM of small variance, Euler and Euler ancestral: eta tells them apart."""

from dataclasses import dataclass

from torch import Tensor

from sd_sampler.ancestral import ancestral_step
from sd_sampler.errors import SamplerError
from sd_sampler.protocols import Denoiser, Noise, OnStep, batch_sigma


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DDIMOptions:
    """Settle a DDIM run.

    `eta` in [0, 1] is the share of noise drawn anew: 0 is deterministic, 1 is ancestral sampling.
    `clip` clamps x0 to [-clip, clip] while the direction back to x keeps the unclipped noise, as
    diffusers' `clip_sample` has it; to derive the noise anew from the clipped x0, as DDPM does,
    wrap the denoiser in `clipped` instead. Raises `SamplerError` for another eta.
    """

    eta: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise SamplerError(f"eta {self.eta} is out of range: choose from 0 to 1")


DETERMINISTIC = DDIMOptions()


def ddim(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    options: DDIMOptions = DETERMINISTIC,
    landings: Tensor | None = None,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Walk x (B, ...) down sigmas (N + 1,): Song et al., "DDIM", arXiv 2010.02502, eq. 12 and 16.

    Divided by sqrt(alphas_cumprod), eq. 12 reads x' = x0 + sqrt(s'^2 - up^2) eps + up noise, with
    eps = (x - x0) / s and, from eq. 16, up = eta s' sqrt(s^2 - s'^2) / s. `landings` (N,) are the
    levels that the steps aim for where these are not the ladder's next ones: see `Plan`. Raises
    `SamplerError` where eta asks for noise and none is given.
    """
    if options.eta > 0 and noise is None:
        raise SamplerError(f"eta {options.eta} draws noise: give noise=NoiseSource(...) or eta 0")
    levels = sigmas.tolist()
    aims = levels[1:] if landings is None else landings.tolist()
    for step, (sigma, landing) in enumerate(zip(levels[:-1], aims, strict=True)):
        x0 = denoise(x, batch_sigma(x, sigma))
        eps = (x - x0) / sigma
        if options.clip is not None:
            x0 = x0.clamp(-options.clip, options.clip)
        down, up = ancestral_step(sigma, landing, options.eta)
        x = x0 + down * eps
        if noise is not None and up > 0:
            x = x + up * noise()
        if landing != levels[step + 1]:
            x = x * reread(landing, levels[step + 1])
        if on_step is not None:
            on_step(step, sigma, x, x0)
    return x


def reread(landing: float, following: float) -> float:
    """Return what x is multiplied by where diffusers takes one landing for one at `following`.

    It carries the variance-preserving x over as it is.
    """
    return float(((1 + following**2) / (1 + landing**2)) ** 0.5)
