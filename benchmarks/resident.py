"""How much memory a process holds, and held at most."""

import ctypes
import gc
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor


def resident(name: str = "VmRSS") -> int | None:
    """Return VmRSS, or VmHWM, the most there was, in bytes; None where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            for line in lines:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def available() -> int | None:
    """Return how many bytes the machine can still give; None where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


class Meter:
    """Measure one process: what is resident when it is made, after the imports, counts for nothing.

    On CUDA what torch has allocated is counted instead of what is resident.
    """

    def __init__(self, *, on_cuda: bool) -> None:
        self._on_cuda = on_cuda
        self._base = 0 if on_cuda else resident()

    def peak_of(self, run: Callable[[], Tensor], weights: int) -> tuple[Tensor, dict[str, int]]:
        """Run once; return its output and bytes.

        `of_run` is the peak above what was resident before it: activations and workspaces. Free
        heap of earlier runs is given back first, or it would hide them. `beyond_weights` is the
        peak above imports and the bytes of the weights: packed copies and caches count there too.
        What cannot be told is left out.
        """
        if self._on_cuda:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            output = run()
            peak = torch.cuda.max_memory_allocated()
            return output, {"of_run": peak - before, "beyond_weights": peak - weights}
        _give_back_free_heap()
        forgotten, before_run = forget_peak(), resident()
        output = run()
        most = resident("VmHWM")
        if not forgotten or most is None or before_run is None or self._base is None:
            return output, {}
        return output, {
            "of_run": most - before_run,
            "beyond_weights": most - self._base - weights,
        }

    def peak_so_far(self) -> int | None:
        """Return the most since the peak was forgotten, above imports: a load's."""
        if self._on_cuda:
            return int(torch.cuda.max_memory_allocated())
        most = resident("VmHWM")
        return None if most is None or self._base is None else most - self._base


def forget_peak() -> bool:
    """Make VmHWM what is resident now, and tell whether that could be done."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _give_back_free_heap() -> None:
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):  # no glibc: then the free heap stays
        ctypes.CDLL(None).malloc_trim(0)
