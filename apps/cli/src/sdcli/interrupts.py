"""Ctrl-C while pictures are drawn: the step that runs is finished, and what is done is kept."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sdcli.progress import note


@contextmanager
def after_step() -> Iterator[Callable[[], None]]:
    """Put Ctrl-C off until the function that is yielded is called; a second one ends at once."""
    asked = False

    def ask(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        note("ending after this step; Ctrl-C again ends at once")

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
