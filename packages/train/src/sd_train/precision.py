"""Compute precision: fp32 master weights, autocast compute, loss scaling where fp16 needs it."""

from contextlib import AbstractContextManager, nullcontext

import torch

from sd_train.errors import TrainError
from sd_train.processes import local_rank

_AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

EXPORT_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def memory_format(channels_last: bool) -> torch.memory_format:
    """Return the memory format for convolutions' weights."""
    return torch.channels_last if channels_last else torch.contiguous_format


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Open the autocast context of `precision` (fp32, bf16 or fp16)."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_AUTOCAST_DTYPES[precision])


def grad_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Make the loss scaler: live for fp16, inert otherwise."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def resolve_device(name: str) -> torch.device:
    """Turn "auto", "cpu" or "cuda[:n]" into a device; raise TrainError where it is not there.

    Of several processes on a machine each has the GPU of its number.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", local_rank())
    if name == "auto":
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainError(f"device {name!r} is not known; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainError(f"device {name!r}: this machine has no CUDA device; use auto or cpu")
    return device
