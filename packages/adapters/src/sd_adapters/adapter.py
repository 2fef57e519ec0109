"""What every adapter can do, and what can be wrong with one."""

from collections.abc import Iterable
from typing import Protocol

from torch import nn

_MAX_NAMED = 8


class AdapterError(ValueError):
    """An adapter that does not fit; ``keys`` are all the file's keys or module paths concerned."""

    def __init__(self, message: str, keys: Iterable[str] = ()) -> None:
        self.keys = tuple(sorted(keys))
        named = ", ".join(self.keys[:_MAX_NAMED])
        more = len(self.keys) - _MAX_NAMED
        tail = f" and {more} more" if more > 0 else ""
        super().__init__(f"{message}: {named}{tail}" if self.keys else message)


class Adapter(Protocol):
    """Changes what a model computes while the model knows nothing of it.

    The model's state dict has the same keys before, while and after, and after ``eject`` the same
    bits.
    """

    def inject(self, model: nn.Module) -> None:
        """Attach to a model, from now on part of what it computes."""
        ...

    def eject(self) -> None:
        """Leave the model as it was found, whether injected or fused."""
        ...

    def fuse(self) -> None:
        """Become part of the model's weights, so that it costs nothing to run."""
        ...
