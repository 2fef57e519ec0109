"""What the machine can do: the rate of a large matrix product, of a convolution, and of a copy."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional as F

from benchmarks.case import Case
from benchmarks.inputs import torch_dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Hold rates in FLOP/s and bytes/s, each the best that was seen; None where one cannot run."""

    matmul: float | None
    convolution: float | None
    copy: float | None

    @property
    def best(self) -> float | None:
        """Return the best rate of arithmetic, which a floor is reckoned with."""
        return _best(self.matmul, self.convolution)

    def merged(self, other: "Calibration") -> "Calibration":
        """Return the best of both: measured before and after, one may have been disturbed."""
        return Calibration(
            matmul=_best(self.matmul, other.matmul),
            convolution=_best(self.convolution, other.convolution),
            copy=_best(self.copy, other.copy),
        )


def calibrate(case: Case, *, seconds: float) -> Calibration:
    """Measure a device in a dtype, each operation for about `seconds`.

    A square product of 2048 (8192 on CUDA); a 3x3 convolution of 320 to 320 channels on 2 x 64 x 64
    (16 x 128 x 128), the better of both memory layouts; a copy of 256 MiB, each byte counted once.
    """
    found = _measured(case, seconds)
    if case.on_cuda:
        torch.cuda.empty_cache()  # the arms are to have all of it
    return found


def _measured(case: Case, seconds: float) -> Calibration:
    device, dtype = torch.device(case.device), torch_dtype(case)
    wait = torch.cuda.synchronize if case.on_cuda else _no_wait
    side, batch, pixels = (8192, 16, 128) if case.on_cuda else (2048, 2, 64)

    def rate(amount: float, operation: Callable[[], object]) -> float | None:
        return _rate(amount, operation, wait, seconds)

    with torch.inference_mode(), _threads(case.threads):
        square = torch.randn(side, side, device=device).to(dtype)
        matmul = rate(2.0 * side**3, lambda: square @ square)
        kernel = torch.randn(320, 320, 3, 3, device=device).to(dtype)
        image = torch.randn(batch, 320, pixels, pixels, device=device).to(dtype)
        flop = 2.0 * 9 * 320 * 320 * batch * pixels**2
        convolution = None
        for layout in (torch.contiguous_format, torch.channels_last):
            x, w = (tensor.contiguous(memory_format=layout) for tensor in (image, kernel))
            found = rate(flop, partial(F.conv2d, x, w, padding=1))
            convolution = _best(convolution, found)
        source = torch.zeros(2**26, device=device)
        target = torch.empty_like(source)
        copy = rate(source.nbytes, lambda: target.copy_(source))
    return Calibration(matmul=matmul, convolution=convolution, copy=copy)


def _rate(
    amount: float, operation: Callable[[], object], wait: Callable[[], None], seconds: float
) -> float | None:
    """Return the amount over the least time of several; None for what cannot be computed."""
    try:
        operation()
        wait()
        least, begun = float("inf"), time.perf_counter()
        while least == float("inf") or time.perf_counter() - begun < seconds:
            started = time.perf_counter()
            operation()
            wait()
            least = min(least, time.perf_counter() - started)
    except RuntimeError:
        return None
    return amount / least


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _best(*rates: float | None) -> float | None:
    return max((rate for rate in rates if rate is not None), default=None)


def _no_wait() -> None:
    pass
