"""Learnt words: the vectors that textual inversion puts in the place of a name."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from sd_adapters.adapter import AdapterError
from sd_adapters.origin import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """A name and what it means: vectors (n, D), one tensor for each of the model's text towers.

    Gal et al., arXiv:2208.01618. SDXL has two towers, CLIP-L first, and n is the same for both.
    Raises ``AdapterError`` for vectors that are none.
    """

    name: str
    vectors: tuple[Tensor, ...]
    origin: Origin = field(default_factory=Origin)

    def __post_init__(self) -> None:
        shapes = [tuple(vectors.shape) for vectors in self.vectors]
        right = all(len(shape) == 2 and min(shape) > 0 for shape in shapes)
        if not right or len({shape[0] for shape in shapes}) != 1:
            raise AdapterError(
                f"the embedding {self.name!r} has vectors of shapes {shapes}; "
                "each tower needs (n, width), with n the same for all"
            )
        if not self.name:
            raise AdapterError("an embedding needs a name, by which prompts can call it")

    @property
    def num_vectors(self) -> int:
        """The number of tokens that the name takes in a prompt."""
        return self.vectors[0].shape[0]

    @property
    def widths(self) -> tuple[int, ...]:
        """The towers' widths: (768,) in Stable Diffusion 1, (768, 1280) in SDXL."""
        return tuple(vectors.shape[1] for vectors in self.vectors)

    def require_widths(self, widths: Sequence[int]) -> None:
        """Raise ``AdapterError`` in one line unless the model's text towers have these widths."""
        if self.widths != tuple(widths):
            own, wanted = (" and ".join(map(str, each)) for each in (self.widths, widths))
            raise AdapterError(
                f"the embedding {self.name!r} has vectors of width {own}, and the model's text "
                f"encoder {wanted}: it was made for another family of models"
            )
