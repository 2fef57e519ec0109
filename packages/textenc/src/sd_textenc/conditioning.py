"""What a text encoder hands to the network that listens to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditioning:
    """Hold hidden states (B, T, D) and, where there is one, the pooled vector (B, P)."""

    hidden_states: Tensor
    pooled: Tensor | None = None


@runtime_checkable
class TextEncoder(Protocol):
    """Turn prompts into conditioning; how many towers stand behind it is its own affair."""

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Encode B prompts."""
        ...
