"""The UNet recorded once for each shape and replayed at every step (CUDA graphs)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from sd_ops import compile_blocks, kernels_fused, with_room_for_variants
from sd_pipeline.engine import EngineName, Preparation, Ready
from sd_unet import AddedConditions, Backbone, project_texts, texts_given

_T = TypeVar("_T")


class Recorder(Protocol):
    """What does some work and can do it again."""

    def __call__(self, work: Callable[[], _T], /) -> tuple[Callable[[], None], _T]:
        """Return what does it again, into the very same tensors, and these."""
        ...


class Given(NamedTuple):
    """A network's arguments."""

    latents: Tensor
    timesteps: Tensor
    hidden_states: Tensor | None
    added: AddedConditions | None
    class_labels: Tensor | None

    def tensors(self) -> tuple[Tensor | None, ...]:
        """Return them one after the other."""
        pooled, sizes = self.added or (None, None)
        return self.latents, self.timesteps, self.hidden_states, pooled, sizes, self.class_labels

    def copied(self) -> "Given":
        """Return the same in memory of its own."""
        latents, timesteps, states, pooled, sizes, labels = (
            None if tensor is None else tensor.clone() for tensor in self.tensors()
        )
        assert latents is not None
        assert timesteps is not None
        added = None
        if pooled is not None and sizes is not None:
            added = AddedConditions(pooled, sizes)
        return Given(latents, timesteps, states, added, labels)


class GraphedUNet:
    """A UNet or DiT on CUDA whose kernels are launched all at once, as they were recorded.

    What launches them one by one takes longer on a fast card than they do. Each shape is recorded
    at its first call, and anew where weights were written to or hooks changed since the last run;
    the two that were used last are kept. What is computed of the texts is a recording of its own,
    replayed only where they change. With ``compiled`` the network's blocks are compiled before.
    ``record`` is `recorded_on_cuda` but for tests.
    """

    def __init__(
        self, network: Backbone, *, compiled: bool = False, record: Recorder | None = None
    ) -> None:
        self.name: EngineName = "compiled" if compiled else "graphs"
        self._network = network
        self._record = recorded_on_cuda if record is None else record
        if network.conv_in.weight.dtype != torch.float32:
            # Halves are convolved in channels_last, and the fused norms leave them so; torch's own
            # would turn every picture back and forth.
            network.to(memory_format=torch.channels_last)
        self._ready: Ready[_Recording] = Ready(network)
        self._compiled = compiled
        if compiled:
            compile_blocks(network)

    @property
    def preparations(self) -> Sequence[Preparation]:
        """Return all that was recorded."""
        return self._ready.preparations

    @contextmanager
    def run(self) -> Iterator[None]:
        """Forget what was recorded of another state of the network."""
        room = with_room_for_variants() if self._compiled else nullcontext()
        with self._ready.run(), room:
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
        given = Given(latents, timesteps, hidden_states, added, class_labels)
        shapes = tuple(None if one is None else tuple(one.shape) for one in given.tensors())
        with torch.cuda.device(latents.device if latents.is_cuda else -1):
            return self._ready.get(shapes, lambda: self._recorded(given))(given)

    def _recorded(self, given: Given) -> "_Recording":
        with kernels_fused():
            return _Recording(self._network, given, self._record)


class _Recording:
    """One shape: where its arguments are written to, and what then fills its result."""

    def __init__(self, network: Backbone, given: Given, record: Recorder) -> None:
        own = given.copied()
        self._places = own.tensors()
        # Held, so that no other tensor takes its place: told by the very same one is told the same.
        self._told = given.hidden_states
        self._tell, texts = _nothing, list[Sequence[Tensor]]()
        states = own.hidden_states
        if states is not None:
            self._tell, texts = record(lambda: project_texts(network, states))
            self._tell()  # recording has only taken down what is to be done

        def step() -> Tensor:
            hears = nullcontext() if states is None else texts_given(network, texts)
            with hears:
                out: Tensor = network(*own)
                return out

        self._step, self._out = record(step)

    def __call__(self, given: Given) -> Tensor:
        anew = given.hidden_states is not self._told
        for place, value in zip(self._places, given.tensors(), strict=True):
            if place is not None and value is not None and (anew or value is not self._told):
                place.copy_(value)
        if anew:
            self._told = given.hidden_states
            self._tell()
        self._step()
        return self._out.clone()  # the next step is written into the same


def _nothing() -> None:
    """Do what there is to be done for a network that hears no text."""


def recorded_on_cuda(work: Callable[[], _T]) -> tuple[Callable[[], None], _T]:
    """Record what some work launches on the current device; returns its replay and its result.

    It is done once before, on a stream aside, for what is made at a first call may not be recorded.
    """
    current, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(current)
    with torch.cuda.stream(aside):
        work()
    current.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return graph.replay, result
