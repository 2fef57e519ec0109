"""The UNet with its blocks compiled by torch, the same numbers to rounding."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from sd_ops import compile_blocks, with_room_for_variants
from sd_pipeline.engine import EngineName, PlainUNet, Preparation, hooks_of, memory_kept, refused
from sd_unet import AddedConditions, Backbone, project_texts, texts_given

_MOST_TEXTS = 2  # both prompts of guidance, and one alone


class CompiledUNet(PlainUNet):
    """A UNet or DiT whose blocks are compiled where they stand, each at its first call.

    Regional compilation: blocks of one kind and size share what is made of them, so that it takes
    a fraction of the whole network's time. A new size, and adapters, make it anew; torch keeps what
    it made on disk, for other processes. Each of ``preparations`` is a whole first step.
    """

    name: EngineName = "compiled"

    def __init__(self, network: Backbone) -> None:
        super().__init__(network)
        compile_blocks(network)
        self._known: set[tuple[object, ...]] = set()
        self._hooks: tuple[int, ...] = ()
        self._texts: list[tuple[Tensor, list[Sequence[Tensor]]]] = []

    @contextmanager
    def run(self) -> Iterator[None]:
        """Let blocks be compiled for what comes, beside what is kept of a run."""
        self._hooks = hooks_of(self.network)
        try:
            with with_room_for_variants(), memory_kept(self.network):
                yield
        finally:
            self._texts.clear()

    def __call__(
        self,
        latents: Tensor,
        timesteps: Tensor,
        hidden_states: Tensor | None = None,
        added: AddedConditions | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """Predict (R * B, C, H, W); raises ``PipelineError`` where it cannot be compiled."""
        shapes = latents.shape, None if hidden_states is None else hidden_states.shape
        key, started = (*shapes, latents.dtype, self._hooks), time.perf_counter()
        try:
            with self._told(hidden_states):
                out = super().__call__(latents, timesteps, hidden_states, added, class_labels)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            line = str(error).strip().splitlines()[0]
            raise refused("compiled", f"fails ({line:.200})", "mend that") from error
        if key not in self._known:
            self._known.add(key)
            seconds = time.perf_counter() - started
            self.preparations.append(Preparation(latents=tuple(latents.shape), seconds=seconds))
        return out

    def _told(self, states: Tensor | None) -> AbstractContextManager[None]:
        """Give a text's keys and values to the network, as tensors that compiled code is handed.

        Whether it has them already is looked up here, for the compiler would break off to ask.
        """
        if states is None:
            return nullcontext()
        found = next((texts for known, texts in self._texts if known is states), None)
        if found is None:
            found = project_texts(self.network, states)
            self._texts = [*self._texts[1 - _MOST_TEXTS :], (states, found)]
        return texts_given(self.network, found)
