"""What all arms are given: equal latents, timesteps and text states, made from a seed."""

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import DTYPES, TIMESTEP, Case


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Hold latents (B, C, h, w), and for a guided step timesteps (2 B,) and states (2 B, T, D)."""

    latents: Tensor
    timesteps: Tensor
    states: Tensor

    @property
    def pair(self) -> Tensor:
        """Return the latents twice (2 B, C, h, w), as guidance asks for them."""
        return torch.cat([self.latents] * 2)


def torch_dtype(case: Case) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, DTYPES[case.dtype])
    return dtype


def make_inputs(case: Case) -> Inputs:
    """Draw the inputs on the CPU in float32, so that every process and dtype has the same ones.

    The latents of picture i are those that pipelines draw for its seed, `seed + i`.
    """
    unet, vae, text = (config_of(case, part) for part in ("unet", "vae", "text_encoder"))
    factor = 1 << (len(vae["block_out_channels"]) - 1)
    shape = (1, unet["in_channels"], case.height // factor, case.width // factor)
    seeds = range(case.seed, case.seed + case.batch)
    latents = torch.cat([normal(shape, seed) for seed in seeds])
    rows, length = 2 * case.batch, text["max_position_embeddings"]
    states = normal((rows, length, unet["cross_attention_dim"]), case.seed - 1)
    device, dtype = torch.device(case.device), torch_dtype(case)
    return Inputs(
        latents=latents.to(device, dtype),
        timesteps=torch.full((rows,), TIMESTEP, device=device),
        states=states.to(device, dtype),
    )


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    """Return what a seed draws on the CPU in float32."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def config_of(case: Case, part: str) -> dict[str, Any]:
    """Return the settings of a part of the model, as its folder has them."""
    config: dict[str, Any] = json.loads((case.place / part / "config.json").read_text("utf-8"))
    return config
