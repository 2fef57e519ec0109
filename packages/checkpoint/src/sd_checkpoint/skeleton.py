"""Modules without weights, to be filled out of a file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["skeleton"]

_INITIALISERS = frozenset(
    value for name, value in vars(nn.init).items() if name.endswith("_") and callable(value)
)


class _LeftAlone(TorchFunctionMode):
    """Take initialisers for done: on the meta device they cost time and do nothing."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _INITIALISERS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def skeleton() -> Iterator[None]:
    """Make every module that is built here on the meta device, and initialise none of its weights.

    `load_into` brings them alive.
    """
    with torch.device("meta"), _LeftAlone():
        yield
