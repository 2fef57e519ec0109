"""What Ctrl-C and SIGTERM end, and when: a drawing after its step, all else at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from sdcli.progress import note

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Ending:
    """Ends a command at once, by an exception, so that what is half written is cleared away."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        self.signal = number
        self.end()

    def end(self) -> None:
        """Raise what ends the command if a signal came."""
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        if self.signal is not None:
            raise KeyboardInterrupt


@contextmanager
def at_once() -> Iterator[Ending]:
    """End on Ctrl-C and SIGTERM inside the context (main thread only)."""
    ending = Ending()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, ending) for number in _NUMBERS}
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_if_asked() -> None:
    """End now where a signal came before, but a library that was being imported swallowed it."""
    handler = signal.getsignal(signal.SIGTERM)
    if isinstance(handler, Ending):
        handler.end()


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
