"""What both sides of a training step are given, and what is compared of them after it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from benchmarks.case import Case
from benchmarks.inputs import config_of, normal
from sd_checkpoint import load_json, skeleton

if TYPE_CHECKING:
    from sd_unet import UNet

LEARNING_RATE, CLIP_NORM = 1e-4, 1.0
BETAS, WEIGHT_DECAY = (0.9, 0.999), 0.0
"""Nothing decays, for which weights do is not the same on both sides; the work is."""

PRIOR_WEIGHT = 1.0
"""Of the class' loss beside the subject's in DreamBooth; the script's own."""

EMA_DECAY = 0.9999
RANK, TARGETS = 4, ("to_q", "to_k", "to_v", "to_out.0")
"""Of a LoRA; the scripts' own."""

NUM_CHECKED = 2
"""Steps after which losses and weights are compared."""

_SEEN = 512  # values of each parameter
_LORA_START = 0.02
# Measured at SD 1.5's shapes: what a step holds in float32, by the channels of the first level.
_BYTES_A_LATENT = 2800


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesson:
    """Hold cached latents (B, C, h, w), not yet scaled, and text states (B, T, D), in float32.

    DreamBooth's first half is of the subject, and the second of its class.
    """

    latents: Tensor
    states: Tensor

    def halves(self) -> "tuple[Lesson, Lesson]":
        """Return what is of the subject, and what is of its class."""
        (own, prior), (its, priors) = self.latents.chunk(2), self.states.chunk(2)
        return Lesson(latents=own, states=its), Lesson(latents=prior, states=priors)


def make_lesson(case: Case) -> Lesson:
    """Draw a batch on the CPU, the same one in every process."""
    unet, vae, text = (config_of(case, part) for part in ("unet", "vae", "text_encoder"))
    factor = 1 << (len(vae["block_out_channels"]) - 1)
    shape = (case.num_shown, unet["in_channels"], case.height // factor, case.width // factor)
    states = (case.num_shown, text["max_position_embeddings"], unet["cross_attention_dim"])
    return Lesson(
        # The autoencoder's latents are as large as its factor makes them one.
        latents=normal(shape, case.seed) / vae["scaling_factor"],
        states=normal(states, case.seed - 1),
    )


def drawn(case: Case, step: int, shape: torch.Size, num_timesteps: int) -> tuple[Tensor, Tensor]:
    """Return the timesteps and the noise that our trainer draws at a step, counted from 0."""
    from sd_sampler import timestep_sampler
    from sd_train.seeds import generator_for

    generator = generator_for(case.seed, "loss", step * case.batch)
    timesteps = timestep_sampler("uniform")(shape[0], num_timesteps, generator)
    return timesteps, torch.randn(shape, generator=generator)


def set_start(loras: Mapping[str, nn.Parameter], seed: int) -> None:
    """Give the matrices of a LoRA their first values, by name, none of them nought.

    The scripts begin with one of each pair at nought, which would hide the other's gradient.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in sorted(loras):
            matrix = loras[name]
            matrix.copy_(_LORA_START * torch.randn(matrix.shape, generator=generator))


class Witness:
    """Note the losses of the first steps, and how some values of each weight have changed."""

    def __init__(self, learnt: Mapping[str, nn.Parameter]) -> None:
        self._learnt = [learnt[name] for name in sorted(learnt)]
        self._before = [_some(parameter) for parameter in self._learnt]
        self._losses: list[Tensor] = []
        self._output = torch.zeros(0)

    def noted(self, loss: Tensor) -> Tensor:
        """Take a step's loss; return the losses and changes (V,), once enough steps are done."""
        if len(self._losses) < NUM_CHECKED:
            self._losses.append(loss.detach().float().reshape(1).cpu())
            if len(self._losses) == NUM_CHECKED:
                pairs = zip(self._learnt, self._before, strict=True)
                self._output = torch.cat([*self._losses, *(_some(p) - was for p, was in pairs)])
        return self._output


def _some(parameter: nn.Parameter) -> Tensor:
    values = parameter.detach().reshape(-1)
    return values[:: max(1, values.numel() // _SEEN)].float().cpu().clone()


def bytes_to_train(case: Case) -> int:
    """Return about how much memory a training step needs: weights, gradients, optimizer and all."""
    config = config_of(case, "unet")
    with unet_skeleton(case) as unet:
        weights = sum(parameter.numel() for parameter in unet.parameters())
    half = not case.learns_all and case.dtype != "fp32"
    held = weights * (2 if half else 4)
    if case.learns_all:
        held += weights * (16 if case.ema else 12)
    latents = make_lesson(case).latents
    places = latents.shape[0] * latents.shape[2] * latents.shape[3]
    share = 1 if case.dtype == "fp32" else 0.5
    return held + int(share * places * config["block_out_channels"][0] * _BYTES_A_LATENT)


@contextmanager
def unet_skeleton(case: Case) -> "Iterator[UNet]":
    """Yield the network of a case on the meta device, as is all that is made meanwhile."""
    from sd_unet import UNet, UNetConfig

    config = UNetConfig.from_diffusers(load_json(case.place / "unet" / "config.json"))
    with skeleton():
        yield UNet(config)
