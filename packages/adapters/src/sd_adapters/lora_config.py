"""What a new LoRA is to be."""

from dataclasses import dataclass
from typing import Literal, get_args

from sd_adapters.adapter import AdapterError

LoraKind = Literal["lora", "loha", "lokr"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """How large a new LoRA is and where it goes; its scale is ``alpha / rank``.

    ``targets`` are ends of module paths, a linear's or a convolution's. ``block_ranks`` gives the
    modules whose paths begin so ("down_blocks.0") another rank, at the same scale; the first that
    fits counts. ``dora`` lets the lengths of the weights' rows learn too, ``tucker`` gives spatial
    convolutions Tucker's form, ``factor`` limits the small factor of a LoKr, and ``dropout`` is the
    probability with which an input is left out in training.
    """

    rank: int = 8
    alpha: float = 8.0
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    kind: LoraKind = "lora"
    dora: bool = False
    dropout: float = 0.0
    block_ranks: tuple[tuple[str, int], ...] = ()
    tucker: bool = False
    factor: int = -1

    def __post_init__(self) -> None:
        for rank in (self.rank, *(rank for _, rank in self.block_ranks)):
            if rank < 1:
                raise AdapterError(f"LoRA rank {rank} is below 1: give 1 or more")
        if not 0 <= self.dropout < 1:
            raise AdapterError(f"LoRA dropout is {self.dropout}: give 0 or more, and less than 1")
        if self.kind not in get_args(LoraKind):
            kinds = ", ".join(get_args(LoraKind))
            raise AdapterError(f"LoRA kind is {self.kind!r}; known are {kinds}")

    def rank_at(self, path: str) -> int:
        """Return the rank of the layer for the module at a path."""
        for beginning, rank in self.block_ranks:
            if path == beginning or path.startswith(f"{beginning}."):
                return rank
        return self.rank
