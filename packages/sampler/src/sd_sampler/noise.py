"""Where every random number of a picture comes from."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sd_sampler.errors import SamplerError

_PARALLEL = 0.9995  # of noises that point the same way the sine below is too small to divide by


class NoiseSource:
    """Draw noise (B, *shape) for a batch, picture i from its own seed and from nothing else.

    Each picture has one CPU float32 generator, so that a seed gives the same noise on any device,
    in any dtype's rounding of the same numbers, and in any batch: noise i equals the successive
    torch.randn((1, *shape), generator=torch.Generator("cpu").manual_seed(seeds[i])), which is also
    what diffusers' pipelines draw for a list of such generators.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Seed one generator a picture; raises `SamplerError` for no seeds or one out of range."""
        if not seeds:
            raise SamplerError("no seeds: a noise source needs one seed for each picture")
        for seed in seeds:
            if not 0 <= seed < 2**64:
                raise SamplerError(f"seed {seed} is out of range: choose from 0 to 2**64 - 1")
        self.seeds = tuple(seeds)
        self.shape = tuple(shape)
        self.device = torch.device(device)
        self.dtype = dtype
        self._generators = self._seeded()

    def _seeded(self) -> list[torch.Generator]:
        return [torch.Generator("cpu").manual_seed(seed) for seed in self.seeds]

    def initial(self) -> Tensor:
        """Start every picture afresh and draw its first noise (B, *shape)."""
        self._generators = self._seeded()
        return self()

    def __call__(self) -> Tensor:
        """Draw the next noise (B, *shape)."""
        draws = [
            torch.randn((1, *self.shape), generator=generator, dtype=torch.float32)
            for generator in self._generators
        ]
        drawn = torch.cat(draws)
        if self.device.type != "cuda":
            return drawn.to(self.device, self.dtype)
        # From pinned memory the copy waits for nothing.
        return drawn.pin_memory().to(self.device, self.dtype, non_blocking=True)


class BlendedNoise(NoiseSource):
    """Draw noise whose first lies between that of two seeds; what comes after is the first seed's.

    Picture i of `seeds` is drawn towards picture i of `others`, by `share` from 0 to 1.
    """

    def __init__(self, source: NoiseSource, others: Sequence[int], share: float) -> None:
        """Blend towards one other seed a picture; raises `SamplerError` as `NoiseSource`."""
        super().__init__(source.seeds, source.shape, source.device, source.dtype)
        if len(others) != len(self.seeds):
            raise SamplerError(
                f"{len(others)} seeds to blend with for {len(self.seeds)}: give as many"
            )
        self._other = NoiseSource(others, self.shape, self.device, self.dtype)
        self._share = share

    def initial(self) -> Tensor:
        """Start every picture afresh and draw its first noise (B, *shape)."""
        return slerp(super().initial(), self._other.initial(), self._share)


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Go `share` of the way along the arc from each of (B, ...) to its like: still normal noise.

    A straight line would pass too close to 0, and such noise is drawn as a flat picture. Shoemake,
    "Animating rotation with quaternion curves" (SIGGRAPH 1985), section 3.3.
    """
    flat = first.flatten(1).double(), second.flatten(1).double()
    cosine = F.cosine_similarity(flat[0], flat[1], dim=1).clamp(-1, 1)
    angle = cosine.arccos()
    near = cosine.abs() > _PARALLEL
    sine = angle.sin().where(~near, torch.ones_like(angle))
    weights = (
        (((1 - share) * angle).sin() / sine).where(~near, torch.full_like(angle, 1 - share)),
        ((share * angle).sin() / sine).where(~near, torch.full_like(angle, share)),
    )
    blended = weights[0][:, None] * flat[0] + weights[1][:, None] * flat[1]
    return blended.reshape(first.shape).to(first)
