"""The peer's arms: diffusers as it comes, and compiled as its documentation tells."""

from collections.abc import Sequence
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from benchmarks.arms import Run
from benchmarks.case import GUIDANCE, NEGATIVE, PROMPT, Case
from benchmarks.inputs import Inputs, torch_dtype


class Diffusers:
    """diffusers with its defaults, in inference mode as everything here."""

    def imports(self, case: Case) -> None:
        # They are imported when they are first named.
        if case.target == "step":
            _ = diffusers.UNet2DConditionModel
        elif case.target == "decode":
            _ = diffusers.AutoencoderKL
        else:
            _ = diffusers.StableDiffusionPipeline
            from transformers import CLIPTextModel  # noqa: F401

    def load(self, case: Case) -> Sequence[nn.Module]:
        dtype = torch_dtype(case)
        if case.target == "step":
            kind = diffusers.UNet2DConditionModel
            self._unet: Any = kind.from_pretrained(case.folder, subfolder="unet", torch_dtype=dtype)
            self._unet.to(case.device)
            return [self._unet]
        if case.target == "decode":
            kind = diffusers.AutoencoderKL
            self._vae: Any = kind.from_pretrained(case.folder, subfolder="vae", torch_dtype=dtype)
            self._vae.to(case.device)
            return [self._vae]
        kind = diffusers.StableDiffusionPipeline
        self._pipeline: Any = kind.from_pretrained(case.folder, torch_dtype=dtype)
        self._pipeline.set_progress_bar_config(disable=True)
        self._pipeline.to(case.device)
        return [self._pipeline.unet, self._pipeline.vae, self._pipeline.text_encoder]

    def prepare(self, case: Case, inputs: Inputs) -> Run:
        if case.target == "step":
            return _step_of(self._unet, inputs)
        if case.target == "decode":
            return _decode_of(self._vae, inputs)
        return lambda: _draw(self._pipeline, case, inputs.latents)


class DiffusersCompiled(Diffusers):
    """diffusers' networks in channels_last under torch.compile.

    On CUDA with `max-autotune` and the flags of the compiler that the documentation names; on a CPU
    in the default mode, for what the other gains are CUDA graphs.
    """

    def prepare(self, case: Case, inputs: Inputs) -> Run:
        mode = case.compile_mode or ("max-autotune" if case.on_cuda else "default")
        if case.on_cuda:
            _set_documented_flags()
        if case.target == "txt2img":
            self._pipeline.unet = _compiled(self._pipeline.unet, mode)
            self._pipeline.vae.decode = _compiled_decode(self._pipeline.vae, mode)
        elif case.target == "step":
            self._unet = _compiled(self._unet, mode)
        elif case.target == "decode":
            self._vae.decode = _compiled_decode(self._vae, mode)
        return super().prepare(case, inputs)


def _step_of(unet: Any, inputs: Inputs) -> Run:
    latents, timesteps, states = inputs.pair, inputs.timesteps, inputs.states

    def step() -> Tensor:
        output: Tensor = unet(latents, timesteps, encoder_hidden_states=states, return_dict=False)[
            0
        ]
        return output

    return step


def _decode_of(vae: Any, inputs: Inputs) -> Run:
    def decode() -> Tensor:
        latents = inputs.latents / vae.config.scaling_factor
        pixels: Tensor = vae.decode(latents, return_dict=False)[0]
        return pixels

    return decode


def _draw(pipeline: Any, case: Case, latents: Tensor) -> Tensor:
    """Return pictures (B, H, W, 3) in 255ths; the noise is given, for bf16 draws other numbers."""
    images = pipeline(
        [PROMPT] * case.batch,
        negative_prompt=[NEGATIVE] * case.batch,
        width=case.width,
        height=case.height,
        num_inference_steps=case.steps,
        guidance_scale=GUIDANCE,
        latents=latents,
        output_type="np",
    ).images
    return (torch.from_numpy(images).float() * 255).round() / 255


def _compiled(network: Any, mode: str) -> Any:
    network.to(memory_format=torch.channels_last)
    return torch.compile(network, mode=mode, fullgraph=True)


def _compiled_decode(vae: Any, mode: str) -> Any:
    vae.to(memory_format=torch.channels_last)
    return torch.compile(vae.decode, mode=mode, fullgraph=True)


def _set_documented_flags() -> None:
    from torch._inductor import config

    for name, value in (
        ("conv_1x1_as_mm", True),
        ("coordinate_descent_tuning", True),
        ("epilogue_fusion", False),
        ("coordinate_descent_check_all_directions", True),
    ):
        if hasattr(config, name):  # newer compilers may have dropped some
            setattr(config, name, value)
