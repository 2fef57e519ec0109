"""Progress on the terminal, on stderr, so that stdout carries results alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


@cache
def stderr() -> "Console":
    """Return the console of what is neither result nor file."""
    # Imported here and below: a help has nothing to show, and waits for nothing.
    from rich.console import Console

    # Captions and file names have brackets and colons of their own.
    return Console(stderr=True, markup=False, emoji=False)


@contextmanager
def progress(*, transient: bool = False) -> Iterator["Progress"]:
    """Show bars with counts, time spent and time left; plain lines where there is no terminal.

    What is `transient` goes when it is done, and is on terminals alone.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    hidden = transient and not stderr().is_terminal
    with Progress(*columns, console=stderr(), transient=transient, disable=hidden) as bars:
        yield bars


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show on terminals how many of `total` are done, as long as it takes; yield what to tell."""
    with progress(transient=True) as bars:
        bar = bars.add_task(what, total=total, note="")
        yield lambda done: bars.update(bar, completed=done)


def note(message: str) -> None:
    """Say something that is neither result nor error."""
    stderr().print(message, style="yellow", highlight=False, soft_wrap=True)
