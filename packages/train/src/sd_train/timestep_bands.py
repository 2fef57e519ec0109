"""Losses by how much noise there was: a mean over all timesteps hides where it is lost."""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from sd_train.errors import TrainError


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """The mean loss of `num_looks` looks at timesteps from `first` to `last`, both included."""

    first: int
    last: int
    loss: float
    num_looks: int


def by_band(
    timesteps: Tensor, losses: Tensor, *, num_timesteps: int, num_bands: int
) -> tuple[Band, ...]:
    """Sort losses (L,) by their timesteps (L,) into bands of equal width; empty ones are left out.

    Raises TrainError unless 1 <= `num_bands` <= `num_timesteps`.
    """
    if not 1 <= num_bands <= num_timesteps:
        raise TrainError(
            f"{num_bands} bands of {num_timesteps} timesteps cannot be made; use 1 to "
            f"{num_timesteps}"
        )
    edges = [number * num_timesteps // num_bands for number in range(num_bands + 1)]
    bands = []
    for first, end in pairwise(edges):
        inside = (timesteps >= first) & (timesteps < end)
        if inside.any():
            bands.append(
                Band(
                    first=first,
                    last=end - 1,
                    loss=float(losses[inside].mean()),
                    num_looks=int(inside.sum()),
                )
            )
    return tuple(bands)
