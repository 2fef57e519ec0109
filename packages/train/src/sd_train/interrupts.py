"""Ctrl-C and SIGTERM as a wish to stop after the step, not as an accident."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

from torch import nn

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
# Shells and launchers send a signal to a process and to its group: that is one wish.
_ONE_WISH = 1.0  # seconds


class StopRequest:
    """Tells whether someone asked the run to stop, and by which signal."""

    def __init__(self, number: int | None = None) -> None:
        self.signal = number
        self._heard_at = time.monotonic()

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None

    def __call__(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Take a signal; a Ctrl-C that comes later than another one interrupts at once."""
        now = time.monotonic()
        if not self.asked:
            self.signal, self._heard_at = number, now
        elif number == signal.SIGINT and now - self._heard_at > _ONE_WISH:
            raise KeyboardInterrupt


class _Remembered:
    """Passes signals on to who heard them before, and keeps in mind that they came."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.before: dict[int, Any] = {}

    def __call__(self, number: int, frame: FrameType | None) -> None:
        before = self.before[number]
        if before is signal.SIG_IGN:
            return
        self.signal = number
        if callable(before):
            before(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


@contextmanager
def signals_remembered() -> Iterator[None]:
    """Let no signal be lost inside the context: `stop_on_signals` within it hears of it, too.

    Signals do what they did before (main thread only). But what they raise is swallowed now and
    then, by libraries that are just being imported.
    """
    remembered = _Remembered()
    with _handling(remembered) as before:
        remembered.before = before
        yield


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a stop request inside the context (main thread only)."""
    earlier = signal.getsignal(signal.SIGTERM)
    request = StopRequest(earlier.signal if isinstance(earlier, _Remembered) else None)
    with _handling(request):
        yield request


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[dict[int, Any]]:
    """Let a handler hear the signals; yield those who heard them before."""
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _NUMBERS}
    if threading.current_thread() is not threading.main_thread():
        yield before
        return
    for number in _NUMBERS:
        signal.signal(number, handler)
    try:
        yield before
    finally:
        for heard, earlier in before.items():
            signal.signal(heard, earlier)


class BrokenOff(Exception):  # noqa: N818 - nothing is wrong
    """Raised where someone asked to stop while there was no step to wait for."""


@contextmanager
def broken_off(modules: Sequence[nn.Module], request: StopRequest) -> Iterator[None]:
    """Raise `BrokenOff` when a module, or one right inside it, computes after a stop request.

    Not in the signal's handler, which might leave a thing half done.
    """

    def look(*_called: object) -> None:
        if request.asked:
            raise BrokenOff

    # Those that hold layers: what is done with a single layer may go by whether it has hooks.
    inside = [part for module in modules for part in module.children() if any(part.children())]
    with ExitStack() as stack:
        for part in {*modules, *inside}:
            stack.callback(part.register_forward_pre_hook(look).remove)
        yield
