"""The UNet computed by OpenVINO: converted once for each shape, the same numbers to rounding."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from sd_pipeline.engine import EngineName, Preparation, Ready, refused
from sd_pipeline.errors import PipelineError
from sd_pipeline.openvino_import import load_openvino
from sd_pipeline.request import Txt2Img
from sd_unet import AddedConditions, Backbone

_PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}
_ATTENTIONS = ("auto", "sdpa")

_Shapes = tuple[tuple[int, ...], ...]
_Graph = Callable[[tuple[Tensor, ...]], Tensor]


class OpenVINOUNet:
    """Stand for a UNet or a DiT on the CPU: called as it is, and answering what it does.

    Each shape is converted and compiled at its first call; the two that were used last are kept.
    Converted weights are the network's own memory, of which each that is kept has one packed copy.
    What little is made of time, sizes and classes stays torch's: bfloat16 would not tell its steps
    apart. ``preparations`` tells of all conversions.
    """

    name: EngineName = "openvino"

    def __init__(self, network: Backbone) -> None:
        self._network = network
        self._core: Any = load_openvino().Core()
        self._ready: Ready[_Graph] = Ready(network)

    @property
    def preparations(self) -> Sequence[Preparation]:
        """Return all conversions."""
        return self._ready.preparations

    def run(self) -> AbstractContextManager[None]:
        """Forget what was converted of other weights, or with other hooks, than are there now."""
        return self._ready.run()

    def __call__(
        self,
        latents: Tensor,
        timesteps: Tensor,
        hidden_states: Tensor | None = None,
        added: AddedConditions | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """Predict as the network does, (R * B, C, H, W), in the type of the latents."""
        steering = self._network.steering(latents, timesteps, hidden_states, added, class_labels)
        given: tuple[Tensor, ...] = latents, steering
        if hidden_states is not None:
            given = *given, hidden_states
        shapes = tuple(tuple(tensor.shape) for tensor in given)
        compiled = self._ready.get(shapes, lambda: self._compiled(shapes))
        return compiled(given).to(latents.dtype)

    def _compiled(self, shapes: _Shapes) -> _Graph:
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[self._network.conv_in.weight.dtype],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        compiled = self._core.compile_model(_converted(self._network, shapes), "CPU", settings)
        request, output = compiled.create_infer_request(), compiled.output(0)

        def run(given: tuple[Tensor, ...]) -> Tensor:
            # numpy has no bfloat16; the graph takes float32 and goes on in the network's type.
            arrays = [tensor.detach().float().contiguous().numpy() for tensor in given]
            return torch.from_numpy(request.infer(arrays, share_inputs=True)[output])

        return run


def check_openvino(*, device: torch.device, dtype: torch.dtype, attention: str, int8: bool) -> None:
    """Raise `PipelineError` for what OpenVINO cannot compute, and where it is not installed."""
    if device.type != "cpu":
        raise _refused(f"is for CPUs, and the device is {device}", "give --device cpu")
    if dtype not in _PRECISIONS:
        name = str(dtype).removeprefix("torch.")
        raise _refused(f"computes in fp32 and bf16, not in {name}", "give --dtype fp32 or bf16")
    if int8:
        raise _refused("takes no weights that are held as int8", "leave out --int8")
    if attention not in _ATTENTIONS:
        raise _refused(f"has its own attention, not {attention!r}", "leave out --attention")
    load_openvino()


def check_convertible(request: Txt2Img, *, fuse: bool) -> None:
    """Raise `PipelineError` for adapters that are more than weights."""
    for use in request.adapters:
        if use.kind == "hypernetwork":
            raise _refused(f"takes no hypernetworks, such as {use.file}", "leave it out")
        if use.kind == "lora" and not fuse:
            raise _refused(f"takes LoRAs, such as {use.file}, in the weights alone", "add --fuse")


def _refused(what: str, mend: str) -> PipelineError:
    return refused("openvino", what, mend)


class _Steered(nn.Module):
    """What is converted: float32 in and out, the network's own type between."""

    def __init__(self, network: Backbone) -> None:
        super().__init__()
        self.network = network

    def forward(self, *given: Tensor) -> Tensor:
        dtype = self.network.conv_in.weight.dtype
        return self.network.steered(*(tensor.to(dtype) for tensor in given)).float()


def _converted(network: Backbone, shapes: _Shapes) -> Any:
    """Return OpenVINO's graph of a network, of static shapes, over the same weights.

    By the frontend itself: `openvino.convert_model` does the same, and sends telemetry. Raises
    `PipelineError` for what OpenVINO does not know.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # What inference mode makes cannot be traced.
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shapes that become constants, as they are to
        examples = tuple(torch.zeros(shape) for shape in shapes)
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            _Steered(network), examples, strict=False, check_trace=False
        )
        decoder = TorchScriptPythonDecoder(traced, example_input=examples)
        frontend = FrontEndManager().load_by_framework("pytorch")
        try:
            graph = frontend.convert(frontend.load(decoder))
        except Exception as error:  # OpenVINO's own, in C++
            line = str(error).strip().splitlines()[-1]
            raise PipelineError(
                f"OpenVINO does not convert this network ({line:.200}): leave --engine at torch"
            ) from error
    graph.reshape(dict(enumerate(shapes)))
    return graph
