"""What a text encoder hands to the network that listens to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sd_textenc.tokenizer import PromptReport


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditioning:
    """Hold hidden states (B, T, D) and, where there is one, the pooled vector (B, P)."""

    hidden_states: Tensor
    pooled: Tensor | None = None

    def zeroed(self) -> "Conditioning":
        """Return zeros of the same shapes, which is how SDXL was taught to see no prompt."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return Conditioning(hidden_states=torch.zeros_like(self.hidden_states), pooled=pooled)


@runtime_checkable
class TextEncoder(Protocol):
    """Turn prompts into conditioning; how many towers stand behind it is its own affair."""

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Encode B prompts."""
        ...

    def check(self, prompt: str) -> PromptReport:
        """Report what of a prompt does not arrive."""
        ...
