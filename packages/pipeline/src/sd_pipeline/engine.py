"""What computes the UNet: torch as it is, compiled, recorded on CUDA, or OpenVINO."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from sd_ops import COMPILES_SINCE, freed_memory_kept, lay_out_kernels, torch_release
from sd_pipeline.errors import PipelineError
from sd_pipeline.request import Txt2Img
from sd_unet import AddedConditions, Backbone, texts_kept

EngineName = Literal["torch", "compiled", "graphs", "openvino"]
ENGINES: tuple[EngineName, ...] = ("torch", "compiled", "graphs", "openvino")

_T = TypeVar("_T")
Shapes = tuple[tuple[int, ...] | None, ...]
"""Of a network's arguments, the latents' first."""

State = tuple[tuple[tuple[int, int], ...], tuple[int, ...]]
"""Tells whether weights were written to, and which hooks there are."""

_COMPILERS = ("c++", "g++", "clang++", "cl")
_MOST_READY = 2  # a guided step's shape, and that of a step without; each takes its memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """Tell of one shape (B, C, h, w) of latents that was made ready for, and of its seconds.

    Where it is compiled they are of the whole first step.
    """

    latents: tuple[int, ...]
    seconds: float


class Engine(Protocol):
    """What is asked in a UNet's or DiT's place, as it is asked, and answers what it does.

    ``preparations`` tells of all that it made ready for so far: never any of plain torch.
    """

    @property
    def name(self) -> EngineName:
        """Return what it is called."""
        ...

    @property
    def preparations(self) -> Sequence[Preparation]:
        """Return what was made ready for, in its order."""
        ...

    def run(self) -> AbstractContextManager[None]:
        """Return what a run's steps are within; nothing of the network may change meanwhile."""
        ...

    def __call__(
        self,
        latents: Tensor,
        timesteps: Tensor,
        hidden_states: Tensor | None = None,
        added: AddedConditions | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """Predict (R * B, C, H, W) as the network does, to rounding."""
        ...


class PlainUNet:
    """The network itself, by torch."""

    name: EngineName = "torch"

    def __init__(self, network: Backbone) -> None:
        self.network = network
        self.preparations: list[Preparation] = []

    @contextmanager
    def run(self) -> Iterator[None]:
        """Keep what steps have in common: the texts' keys and values and, on a CPU, memory."""
        with texts_kept(self.network), memory_kept(self.network):
            yield

    def __call__(
        self,
        latents: Tensor,
        timesteps: Tensor,
        hidden_states: Tensor | None = None,
        added: AddedConditions | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """Predict (R * B, C, H, W) as the network does."""
        told = hidden_states, added, class_labels
        out: Tensor = self.network(latents, timesteps, *told)
        return out


@contextmanager
def memory_kept(network: Backbone) -> Iterator[None]:
    """Keep freed memory of a CPU for the next step, and lay out before what is to stay."""
    if network.conv_in.weight.device.type != "cpu":
        yield
        return
    lay_out_kernels(network)
    with freed_memory_kept():
        yield


class Ready(Generic[_T]):
    """What was made ready of a network for the shapes of its arguments: the two used last.

    Nothing of it is for other weights, or with other hooks, than are there when a run begins.
    """

    def __init__(self, network: Backbone) -> None:
        self.preparations: list[Preparation] = []
        self._network = network
        self._state = state_of(network)
        self._kept: dict[Shapes, _T] = {}

    @contextmanager
    def run(self) -> Iterator[None]:
        """Forget what was made of another state of the network."""
        state = state_of(self._network)
        if state != self._state:
            self._kept.clear()
            self._state = state
        yield

    def get(self, shapes: Shapes, make: Callable[[], _T]) -> _T:
        """Return what is ready for shapes, made now if need be, and tell of that."""
        if shapes not in self._kept:
            while len(self._kept) >= _MOST_READY:
                del self._kept[next(iter(self._kept))]
            started = time.perf_counter()
            made = make()
            seconds = time.perf_counter() - started
            self.preparations.append(Preparation(latents=shapes[0] or (), seconds=seconds))
            self._kept[shapes] = made
        self._kept[shapes] = self._kept.pop(shapes)  # the last one is the latest
        return self._kept[shapes]


def state_of(network: nn.Module) -> State:
    """Return what changes when weights are written to, or hooks put on or taken off."""
    weights = tuple(
        (one.data_ptr(), 0 if one.is_inference() else one._version) for one in network.parameters()
    )
    return weights, hooks_of(network)


def hooks_of(network: nn.Module) -> tuple[int, ...]:
    """Return the numbers of all hooks, of which none is given twice."""
    return tuple(
        number
        for module in network.modules()
        for number in (*module._forward_pre_hooks, *module._forward_hooks)
    )


def check_engine(engine: str, *, device: torch.device, offload: bool) -> None:
    """Raise `PipelineError` for an engine that there is not, or that cannot be had here.

    What OpenVINO cannot do besides is `check_openvino`'s.
    """
    if engine not in ENGINES:
        raise PipelineError(f"engine is {engine!r}; it must be one of {', '.join(ENGINES)}")
    if engine == "graphs" and device.type != "cuda":
        raise refused(engine, f"is for CUDA, and the device is {device}", "give --device cuda")
    if engine in ("compiled", "graphs") and offload:
        raise refused(engine, "wants weights that stay where they are", "leave out --offload")
    if engine == "compiled":
        _check_compiling(device)


def check_request(engine: EngineName, request: Txt2Img) -> None:
    """Raise `PipelineError` for a request whose steps are not all alike, unless torch computes."""
    if engine == "torch":
        return
    if request.reuse_features > 1:
        raise refused(engine, "computes all of every step", "leave out --reuse-features")
    if request.merge_tokens:
        raise refused(engine, "merges no tokens", "leave out --merge-tokens")
    if request.guidance.pag_scale:
        raise refused(engine, "perturbs no attention", "leave out --pag")


def refused(engine: str, what: str, mend: str) -> PipelineError:
    """Return what says that an engine does not do something, and how to do without."""
    return PipelineError(f"the engine {engine} {what}: {mend}, or leave --engine at torch")


def _check_compiling(device: torch.device) -> None:
    if torch_release() < COMPILES_SINCE:
        needed, found = ".".join(map(str, COMPILES_SINCE)), torch.__version__
        raise refused("compiled", f"needs torch {needed}, and this is {found}", "update torch")
    if device.type == "cpu" and not any(
        map(shutil.which, (os.environ.get("CXX", ""), *_COMPILERS))
    ):
        raise refused("compiled", "needs a C++ compiler", "install one, such as g++")
    if device.type == "cuda" and find_spec("triton") is None:
        raise refused("compiled", "needs triton, which is not installed", "pip install triton")
    if device.type not in ("cpu", "cuda"):
        raise refused("compiled", f"is for CPUs and CUDA, and the device is {device}", "take these")
