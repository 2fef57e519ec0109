"""Exact attention behind one function, with backends chosen by name.

Every backend computes softmax(q k^T / sqrt(D)) v (Vaswani et al. 2017, arXiv:1706.03762, eq. 1);
they differ in speed and memory only.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from sd_ops.attention_backward import attention_by_products_backward
from sd_ops.limits import limits
from sd_ops.native.attention import attend, attend_and_learn, may_attend
from sd_ops.native.library import library, why_not_native

__all__ = ["ATTENTION_BACKENDS", "AttentionUnavailable", "attention", "resolve_backend"]

ATTENTION_BACKENDS = ("auto", "xformers", "native", "sdpa", "chunked")

# Scores held at once by `chunked`: 2**24 float32 values are 64 MiB.
_MAX_CHUNK_SCORES = 2**24
_ROWS = 1024  # of one head's scores, at once
_MAX_WIDTH = 256  # of a head by our own kernel: sums of wider ones leave the cache
_XFORMERS_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


class AttentionUnavailable(ValueError):  # noqa: N818  (the name is what a user reads)
    """Say which attention backend cannot run, why, and what to do about it."""


def attention(q: Tensor, k: Tensor, v: Tensor, *, backend: str = "auto") -> Tensor:
    """Attend from `q` (B, H, Tq, D) to `k` and `v` (B, H, T, D), giving (B, H, Tq, D).

    `auto` takes xformers on CUDA where it is installed and has a kernel for these shapes, on a CPU
    this package's own kernel where that is the faster one, else torch's own; `native` is the same
    on a CPU, and wants the kernel to be there. Raises `AttentionUnavailable` when a backend named
    explicitly cannot run.
    """
    if backend in ("auto", "native") and q.device.type == "cpu":
        # A compiler cannot follow the question whether there is a kernel.
        if backend == "native" and not torch.compiler.is_compiling():
            _check_native(library("attention", q.dtype))
        return _best_on_this_processor(q, k, v)
    name = resolve_backend(backend, q.device, q.dtype)
    if name == "chunked":
        return _chunked(q, k, v)
    if name == "sdpa":
        return _sdpa(q, k, v)
    try:
        return _xformers(q, k, v)
    except NotImplementedError as error:
        # xformers raises this before any work when it has no kernel for the card or the shape.
        if backend == "auto":
            return F.scaled_dot_product_attention(q, k, v)
        raise AttentionUnavailable(
            f"attention backend 'xformers' has no kernel for {q.dtype} with head width "
            f"{q.shape[-1]} on this device; use 'sdpa' or 'auto'"
        ) from error


def resolve_backend(name: str, device: torch.device | str, dtype: torch.dtype) -> str:
    """Return the backend that `name` stands for on `device`: never "auto".

    Raises `AttentionUnavailable` for an unknown name and for one that cannot run, with the reason.
    """
    if name not in ATTENTION_BACKENDS:
        raise AttentionUnavailable(
            f"unknown attention backend {name!r}; choose one of {', '.join(ATTENTION_BACKENDS)}"
        )
    place = torch.device(device)
    reasons = {"xformers": _why_not_xformers, "native": _why_not_native}
    if name == "auto":
        return next((one for one, why_not in reasons.items() if not why_not(place, dtype)), "sdpa")
    if name in reasons and (reason := reasons[name](place, dtype)):
        raise AttentionUnavailable(f"attention backend {name!r} cannot run: {reason}")
    return name


def _check_native(found: object) -> None:
    """Raise `AttentionUnavailable` for a reason in the place of kernels: nothing is read for it."""
    if isinstance(found, str):
        raise AttentionUnavailable(
            "attention backend 'native' cannot run: its kernels are not to be had: "
            f"{found}; use 'auto'"
        )


def _why_not_native(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cpu":
        return f"its kernels are for CPUs, not '{device.type}'; use 'auto'"
    reason = why_not_native(dtype)
    return f"its kernels are not to be had: {reason}; use 'auto'" if reason else None


def _why_not_xformers(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda":
        return f"it needs a CUDA device, not '{device.type}'; use 'sdpa' or 'auto'"
    if dtype not in _XFORMERS_DTYPES:
        return f"it needs float16, bfloat16 or float32, not {dtype}; use 'sdpa' or 'auto'"
    kernel, problem = _load_xformers()
    if kernel is None:
        return f"{problem}; `pip install xformers`, or use 'sdpa' or 'auto'"
    return None


@cache
def _load_xformers() -> tuple[_Kernel | None, str]:
    """Import xformers once: a failed import would otherwise be retried in every layer."""
    try:
        from xformers.ops import memory_efficient_attention
    except ModuleNotFoundError:
        return None, "it is not installed"
    except (ImportError, OSError, RuntimeError) as error:
        return None, f"its import fails ({str(error).splitlines()[0]})"
    return memory_efficient_attention, ""


def _xformers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    kernel, _ = _load_xformers()
    assert kernel is not None
    # xformers wants (B, T, H, D).
    out = kernel(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def _best_on_this_processor(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend by the path that `sd_ops.limits` tells: our kernel, torch's own or plain products."""
    if not q.dtype == k.dtype == v.dtype:
        return _sdpa(q, k, v)
    known, num_queries, num_keys = limits(q.dtype), q.shape[2], k.shape[2]
    if not _wants_grad(q, k, v):
        if num_queries < known.min_queries and min(num_queries, num_keys) < known.min_rows:
            return _sdpa(q, k, v)
        if torch.compiler.is_compiling():
            from sd_ops.opaque import opaque_attention

            out: Tensor = opaque_attention(q, k, v)
            return out
        return without_gradients(q, k, v)
    # A compiler would write a loop out, head by head, and cannot look into a kernel.
    compiling = torch.compiler.is_compiling()
    if num_queries >= known.min_queries_to_learn and not compiling and _is_narrow(q, k, v):
        return attend_and_learn(q, k, v)
    if num_keys <= known.max_keys_to_learn:
        return _chunked(q, k, v)
    if num_keys >= known.min_keys_to_learn and not compiling:
        return attention_by_products_backward(q, k, v)
    return _sdpa(q, k, v)


def without_gradients(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend on this processor by the best path there is when nothing is learnt."""
    known, num_queries, num_keys = limits(q.dtype), q.shape[2], k.shape[2]
    if num_queries >= known.min_queries and _is_narrow(q, k, v):
        return attend(q, k, v)
    if min(num_queries, num_keys) >= known.min_rows:
        return by_rows(q, k, v)
    return _sdpa(q, k, v)


def _is_narrow(q: Tensor, k: Tensor, v: Tensor) -> bool:
    return q.shape[-1] <= _MAX_WIDTH and may_attend(q, k, v)


def _wants_grad(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def by_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend head by head for some queries at a time, so that their scores stay in the cache.

    Of (B, H, Tq, D) and (B, H, T, D), without gradients.
    """
    batch, heads, num_queries, width = q.shape
    out = v.new_empty(batch, heads, num_queries, v.shape[-1])
    q = q * width**-0.5
    for image in range(batch):
        for head in range(heads):
            keys, values = k[image, head].contiguous(), v[image, head].t().contiguous()
            for start in range(0, num_queries, _ROWS):
                rows = slice(start, start + _ROWS)
                weights = F.linear(q[image, head, rows], keys).softmax(dim=-1)
                out[image, head, rows] = F.linear(weights, values)
    return out


def _chunked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend for a few queries at a time, so that the whole (Tq, T) score matrix never exists.

    A softmax runs over one query's row, hence splitting queries is exact.
    """
    batch, heads, num_queries, width = q.shape
    num_rows = max(1, _MAX_CHUNK_SCORES // (batch * heads * k.shape[2]))
    keys = k.transpose(-1, -2)
    chunks = []
    for start in range(0, num_queries, num_rows):
        scores = (q[:, :, start : start + num_rows] * width**-0.5) @ keys
        # Half precision goes in and comes out; the sums are float32 in between.
        chunks.append(scores.softmax(dim=-1).to(v.dtype) @ v)
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks, dim=2)
