"""What the samplers share that step below the next level and climb to it with fresh noise."""

from sd_sampler.errors import SamplerError
from sd_sampler.protocols import Noise


def ancestral_step(sigma: float, following: float, eta: float) -> tuple[float, float]:
    """Return (down, up): the level to solve to and the noise to add, down^2 + up^2 = following^2.

    up = eta s' sqrt(s^2 - s'^2) / s, as in eq. 16 of DDIM (Song et al., arXiv 2010.02502): eta 0
    is the ODE, 1 the posterior.
    """
    up = eta * following * max(1 - (following / sigma) ** 2, 0.0) ** 0.5
    return max(following**2 - up**2, 0.0) ** 0.5, up


def check_noise(name: str, eta: float, noise: Noise | None) -> None:
    """Raise `SamplerError` for eta outside [0, 1], or where it asks for noise and none is given."""
    if not 0 <= eta <= 1:
        raise SamplerError(f"eta {eta} is out of range: choose from 0 to 1")
    if eta > 0 and noise is None:
        raise SamplerError(f"{name} draws noise at eta {eta}: give noise=NoiseSource(...) or eta 0")
