"""Where every random number of a picture comes from."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sd_sampler.errors import SamplerError


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
        return torch.cat(draws).to(self.device, self.dtype)
