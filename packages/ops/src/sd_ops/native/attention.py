"""Attention by this package's own kernel on CPUs, both ways (`attention.c`)."""

import ctypes
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sd_ops.native.library import kernels, library, place, products_to_learn

__all__ = ["attend", "attend_and_learn", "may_attend"]

_TYPES = (torch.float32, torch.bfloat16)


class _Tensor(ctypes.Structure):
    """Where a tensor (B, H, T, D) lies, and its strides but for D's, which is 1."""

    _fields_ = (
        ("place", ctypes.c_void_p),
        ("batch", ctypes.c_long),
        ("head", ctypes.c_long),
        ("row", ctypes.c_long),
    )


class _Sizes(ctypes.Structure):
    _fields_ = (
        ("batch", ctypes.c_long),
        ("heads", ctypes.c_long),
        ("num_queries", ctypes.c_long),
        ("num_keys", ctypes.c_long),
        ("width", ctypes.c_long),
        ("threads", ctypes.c_long),
        ("scale", ctypes.c_float),
    )


_NAMES = ("q", "k", "v", "out", "grad", "grad_q", "grad_k", "grad_v")


class _Learning(ctypes.Structure):
    _fields_ = (*((name, _Tensor) for name in _NAMES), ("log_sums", ctypes.c_void_p))


def may_attend(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Tell whether the kernel takes these (B, H, T, D): plain tensors, and a kernel for them.

    The first question on a machine compiles it.
    """
    return (
        type(q) is type(k) is type(v) is Tensor
        and q.dtype in _TYPES
        and q.dim() == 4
        and k.shape == v.shape
        and (*q.shape[:2], q.shape[3]) == (*k.shape[:2], k.shape[3])
        and q.shape[-1] % 2 == 0
        and min(q.numel(), k.numel()) > 0
        and not torch._C._get_tracing_state()  # which would take the result for a constant
        and not isinstance(library("attention", q.dtype), str)
    )


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend as `sd_ops.attention` does, without gradients, where `may_attend`."""
    return _attend(_in_rows(q), _in_rows(k), _in_rows(v), None)


def attend_and_learn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with gradients, for which no scores and no weights are kept."""
    out = _Attention.apply(q, k, v)
    assert isinstance(out, Tensor)
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = map(_in_rows, (q, k, v))
        log_sums = torch.empty(q.shape[:3], dtype=torch.float32)
        out = _attend(q, k, v, log_sums)
        ctx.save_for_backward(q, k, v, out, log_sums)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, out, log_sums = ctx.saved_tensors
        grad = _in_rows(grad)
        grads = tuple(map(_like, (q, k, v)))
        given = _Learning(*map(_where, (q, k, v, out, grad, *grads)), log_sums.data_ptr())
        _checked(_both_ways(q.dtype).attend_backward(given, _sizes(q, k)))
        return grads[0], grads[1], grads[2]


def _attend(q: Tensor, k: Tensor, v: Tensor, log_sums: Tensor | None) -> Tensor:
    out = _like(q)
    known = kernels("attention", q.dtype) if log_sums is None else _both_ways(q.dtype)
    _checked(known.attend(*map(_where, (out, q, k, v)), place(log_sums), _sizes(q, k)))
    return out


def _both_ways(dtype: torch.dtype) -> ctypes.CDLL:
    return kernels("attention", dtype, products=products_to_learn(dtype))


def _checked(failed: int) -> None:
    if failed:
        raise MemoryError("no memory for the keys of an attention layer: use a smaller size")


def _in_rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _like(x: Tensor) -> Tensor:
    """Return an empty tensor (B, H, T, D) whose heads lie side by side, as layers want them."""
    batch, heads, tokens, width = x.shape
    return x.new_empty(batch, tokens, heads, width).transpose(1, 2)


def _where(x: Tensor) -> _Tensor:
    return _Tensor(x.data_ptr(), x.stride(0), x.stride(1), x.stride(2))


def _sizes(q: Tensor, k: Tensor) -> _Sizes:
    scale = 1 / math.sqrt(q.shape[-1])
    return _Sizes(*q.shape[:3], k.shape[2], q.shape[3], torch.get_num_threads(), scale)
