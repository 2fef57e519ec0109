"""Python's garbage collector, kept from work that makes no garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["no_collection"]


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the collector from running in here; also a decorator.

    Reading a model makes some hundred thousand objects that stay, on top of the millions of the
    imports. The collector takes them for a reason to go through all: a quarter of a second, twice
    what the reading takes.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
