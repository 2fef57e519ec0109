"""Memory that is used again instead of being given back."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

__all__ = ["freed_memory_kept", "give_back_freed"]

# The parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_KEEPING = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**28))
# What glibc comes to by itself in a process that frees large tensors.
_USUAL = (
    (_MMAP_MAX, 2**16),
    (_MMAP_THRESHOLD, 2**25),
    (_TRIM_THRESHOLD, 2**26),
    (_TOP_PAD, 2**17),
)


@contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """Let this process keep what it frees for as long as this lasts; yield whether it does.

    A network makes and frees the same large tensors at every step. glibc gives each back to the
    system and asks for it anew, and the system hands out every page of it zeroed, at the first
    touch: a fifth of SD 1.5's step on a machine where that is slow. It is for work that repeats
    itself: tensors of ever new sizes leave holes, and take twice the memory. Only on Linux with
    glibc; elsewhere nothing changes.
    """
    libc = _glibc()
    kept = libc is not None and _set(libc, _KEEPING)
    try:
        yield kept
    finally:
        if libc is not None:
            _set(libc, _USUAL)
            libc.malloc_trim(0)


def give_back_freed() -> None:
    """Give the system back what this process has freed and glibc keeps for it, holes and all.

    For where what comes next is of other sizes than what was: it would find no room there.
    """
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _set(libc: Any, settings: tuple[tuple[int, int], ...]) -> bool:
    # A list, for none of them is to be left out because another was refused.
    done = [libc.mallopt(name, value) for name, value in settings]
    return all(done)


@cache
def _glibc() -> Any:
    """Return glibc, None where there is another C library."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return None
    try:
        libc = ctypes.CDLL(None)
        _ = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError):
        return None
    return libc
