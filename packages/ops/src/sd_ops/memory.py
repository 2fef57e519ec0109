"""Memory that is used again instead of being given back."""

import ctypes
import platform
from functools import cache

__all__ = ["keep_freed_memory"]

# The parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_LARGEST, _STEP = 2**31 - 1, 2**28


@cache
def keep_freed_memory() -> bool:
    """Let this process keep what it frees, and tell whether it does; once for good.

    A network makes and frees the same large tensors at every step. glibc gives each back to the
    system and asks for it anew, and the system hands out every page of it zeroed, at the first
    touch: a fifth of SD 1.5's step on a machine where that is slow. Only on Linux with glibc.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, _STEP))
    # A list, for none of them is to be left out because another was refused.
    done = [mallopt(name, value) for name, value in settings]
    return all(done)
