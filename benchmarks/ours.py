"""Our arm: a model that `sd_pipeline` loads, asked as `sd_pipeline.denoising` asks it."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.arms import CannotRun, Run
from benchmarks.case import GUIDANCE, NEGATIVE, PROMPT, Case
from benchmarks.inputs import Inputs
from sd_pipeline import Engine, Pipeline, PipelineError, PlainUNet, Txt2Img, load_pipeline


def guided_step(network: Engine, states: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what one step asks of the network: latents (2 B, C, h, w), timesteps (2 B,) -> same.

    What a run does once for its prompts, whose states (2 B, T, D) are given, stands before `step`;
    what it does at every step stands inside. Both prompts see the same latents, which are handed
    over once.
    """
    number = len(states) // 2

    def step(latents: Tensor, timesteps: Tensor) -> Tensor:
        return network(latents[:number], timesteps[:number], states)

    return step


def decode(pipeline: Pipeline, latents: Tensor) -> Tensor:
    """Return the pixels (B, 3, H, W) of scaled latents (B, C, h, w)."""
    vae = pipeline.parts.vae
    return vae.decode(vae.unscale(latents))


def draw(pipeline: Pipeline, case: Case) -> Tensor:
    """Return the pictures (B, H, W, 3) of a prompt, from 0 to 1 in 255ths."""
    request = Txt2Img(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        width=case.width,
        height=case.height,
        num_steps=case.steps,
        guidance_scale=GUIDANCE,
        seed=case.seed,
        count=case.batch,
        batch_size=case.batch,
    )
    pictures = [np.asarray(picture.image) for picture in pipeline.txt2img(request)]
    return torch.from_numpy(np.stack(pictures)).float() / 255


class Ours:
    """The arm."""

    engine = "torch"

    def imports(self, case: Case) -> None:
        """Nothing is left to import: SD 1's text encoder has layers of its own."""

    def load(self, case: Case) -> Sequence[nn.Module]:
        self._pipeline = load_pipeline(
            case.place, device=case.device, dtype=case.dtype, engine=self.engine
        )
        parts = self._pipeline.parts
        networks = {"unet": parts.unet, "vae": parts.vae, "text_encoder": parts.text}
        wanted = {"step": ["unet"], "decode": ["vae"]}.get(case.target, list(networks))
        for name, network in networks.items():
            if name not in wanted:
                network.to("meta")  # as the peers, who load the others not at all
        return [networks[name] for name in wanted]

    def prepare(self, case: Case, inputs: Inputs) -> Run:
        if case.target == "step":
            engine = self._pipeline.unet_engine or PlainUNet(self._pipeline.parts.unet)
            step, latents = guided_step(engine, inputs.states), inputs.pair
            kept = ExitStack()  # of a run of many steps, which ends with the process
            kept.enter_context(engine.run())

            def run(_kept: ExitStack = kept) -> Tensor:
                return step(latents, inputs.timesteps)

            return run
        if case.target == "decode":
            return lambda: decode(self._pipeline, inputs.latents)
        return lambda: draw(self._pipeline, case)


class _OursByEngine(Ours):
    """The same with the UNet computed by another engine than torch as it is."""

    def load(self, case: Case) -> Sequence[nn.Module]:
        if case.target == "decode":
            raise CannotRun("it decodes as ours does")
        try:
            return super().load(case)
        except PipelineError as reason:
            raise CannotRun(str(reason)) from reason


class OursCompiled(_OursByEngine):
    """With blocks compiled by torch, on CUDA also recorded."""

    engine = "compiled"


class OursGraphs(_OursByEngine):
    """Recorded on CUDA."""

    engine = "graphs"


class OursOpenVINO(_OursByEngine):
    """By OpenVINO."""

    engine = "openvino"
