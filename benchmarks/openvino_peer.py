"""The peer under OpenVINO: diffusers' network, converted with static shapes for this processor."""

from collections.abc import Sequence
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from benchmarks.arms import CannotRun, Run
from benchmarks.case import Case
from benchmarks.inputs import Inputs, make_inputs, torch_dtype
from sd_pipeline import load_openvino

_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


class _Step(nn.Module):
    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        output: Tensor = self.unet(latents, timesteps, states, return_dict=False)[0]
        return output


class _Decode(nn.Module):
    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        latents = latents / self.vae.config.scaling_factor
        pixels: Tensor = self.vae.decode(latents, return_dict=False)[0]
        return pixels


class OpenVINO:
    """The arm. The graph is float32's; in bf16 OpenVINO computes as its own hint says."""

    def imports(self, case: Case) -> None:
        load_openvino()
        _ = diffusers.UNet2DConditionModel if case.target == "step" else diffusers.AutoencoderKL

    def load(self, case: Case) -> Sequence[nn.Module]:
        _check(case)
        network = _network(case)
        network.eval().requires_grad_(False)
        given = _arguments(case, make_inputs(case))
        openvino = load_openvino()  # with a stub for its telemetry, which `convert_model` calls
        with torch.no_grad():
            graph = openvino.convert_model(
                network,
                example_input=given,
                input=[tuple(tensor.shape) for tensor in given],
            )
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[case.dtype],
            "PERFORMANCE_HINT": "LATENCY",
        }
        if case.threads:
            settings["INFERENCE_NUM_THREADS"] = case.threads
        self._compiled: Any = openvino.compile_model(graph, "CPU", settings)
        # Only its size is asked for: the weights that are used are OpenVINO's copy.
        return [network.to("meta").to(torch_dtype(case))]

    def prepare(self, case: Case, inputs: Inputs) -> Run:
        given = [tensor.numpy() for tensor in _arguments(case, inputs)]
        request = self._compiled.create_infer_request()
        output = self._compiled.output(0)

        def run() -> Tensor:
            return torch.from_numpy(request.infer(given)[output])

        return run


def _network(case: Case) -> nn.Module:
    if case.target == "step":
        kind = diffusers.UNet2DConditionModel
        return _Step(kind.from_pretrained(case.folder, subfolder="unet"))
    vae = diffusers.AutoencoderKL.from_pretrained(case.folder, subfolder="vae")
    vae.encoder = None  # it decodes only
    return _Decode(vae)


def _check(case: Case) -> None:
    if case.target not in ("step", "decode"):
        raise CannotRun(f"it has no {case.target} of its own; step and decode are measured")
    if case.device != "cpu":
        raise CannotRun(f"it is measured on the CPU alone, not on {case.device}")
    if case.dtype not in _PRECISIONS:
        raise CannotRun(f"on a CPU it computes in fp32 and bf16, not in {case.dtype}")


def _arguments(case: Case, inputs: Inputs) -> tuple[Tensor, ...]:
    if case.target == "decode":
        return (inputs.latents.float(),)
    return inputs.pair.float(), inputs.timesteps, inputs.states.float()
