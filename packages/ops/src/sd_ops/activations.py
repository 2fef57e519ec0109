"""Norms and activations: fast where torch's own are slow, and few tensors for the backward pass."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sd_ops import fused_on_cuda
from sd_ops.native import pointwise

__all__ = ["geglu", "group_norm", "layer_norm", "norm_silu"]

# Of fewer pixels torch norms bfloat16 in channels_last number by number, unless groups are wide:
# 2 x 320 x 16 x 16 in 0.86 ms, in float32 and back in 0.32; 2 x 128 x 16 x 16 in 0.66 and 0.13.
_MANY_PIXELS, _WIDE_GROUP = 1024, 32
_HALVES = (torch.float16, torch.bfloat16)


def geglu(projected: Tensor) -> Tensor:
    """Gate one half of (..., 2 C) by the GELU of the other, giving (..., C).

    Shazeer, arXiv:2002.05202, section 2. On the CPU the GELU is computed again in the backward
    pass: it takes little time, and kept it would be four times as large as the tokens.
    """
    if pointwise.may_gate(projected):
        return pointwise.fused_geglu(projected)
    if fused_on_cuda.may_gate(projected):
        return fused_on_cuda.fused_geglu(projected)
    if _recomputes(projected):
        out: Tensor = _GEGLU.apply(projected)
        return out
    hidden, gate = projected.chunk(2, dim=-1)
    if projected.device.type == "cpu" and projected.dtype in _HALVES:
        gate = gate.contiguous()  # torch's GELU of halves goes by single rows where they lie apart
    # Into what was made just now: it is the network's largest tensor.
    return F.gelu(gate).mul_(hidden)


def group_norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Return normed x (B, C, H, W), by float32 where that is faster and no gradient is wanted."""
    if (out := _fused(x, norm, silu=False)) is not None:
        return out
    if _is_hooked(norm) or not _is_slow(x, norm):
        normed: Tensor = norm(x)
        return normed
    weight, bias = (part if part is None else part.float() for part in (norm.weight, norm.bias))
    return F.group_norm(x.float(), norm.num_groups, weight, bias, norm.eps).to(x.dtype)


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Return normed x (..., C), on a CPU by a kernel of ours where no gradient is wanted."""
    if not _is_hooked(norm) and pointwise.may_norm_rows(x, norm):
        return pointwise.fused_layer_norm(x, norm.weight, norm.bias, norm.eps)
    normed: Tensor = norm(x)
    return normed


def norm_silu(
    x: Tensor, norm: nn.GroupNorm, *, added: Tensor | None = None, recomputed: bool = True
) -> Tensor:
    """Return the SiLU of normed x (B, C, H, W), to which ``added`` (B, C) is added before the norm.

    On the CPU the norm's result is not kept for the backward pass but ``recomputed``.
    """
    out = _fused(x, norm, silu=True, added=added)
    if out is None and added is not None:
        x = x + added[:, :, None, None]
        out = _fused(x, norm, silu=True)
    if out is not None:
        return out
    if _is_hooked(norm) or not (recomputed and _recomputes(x)):
        return F.silu(group_norm(x, norm))
    arguments = (x, norm.weight, norm.bias, norm.num_groups, norm.eps)
    learning: Tensor = _NormSiLU.apply(*arguments)
    return learning


def _is_hooked(norm: nn.Module) -> bool:
    return bool(norm._forward_hooks or norm._forward_pre_hooks)


def _fused(
    x: Tensor, norm: nn.GroupNorm, *, silu: bool, added: Tensor | None = None
) -> Tensor | None:
    """Norm by a kernel of ours, where one may; else None."""
    if _is_hooked(norm):
        return None
    given = (x, norm.num_groups, norm.weight, norm.bias, norm.eps)
    if pointwise.may_norm(x, norm, added):
        return pointwise.fused_group_norm(*given, silu=silu, added=added)
    if added is None and fused_on_cuda.may_norm(x, norm):
        return fused_on_cuda.fused_group_norm(*given, silu=silu)
    return None


def _is_slow(x: Tensor, norm: nn.GroupNorm) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.bfloat16
        and not torch.is_grad_enabled()
        and x.shape[-2] * x.shape[-1] < _MANY_PIXELS
        and norm.num_channels // norm.num_groups <= _WIDE_GROUP
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def _recomputes(x: Tensor) -> bool:
    plain = x.device.type != "cpu" or torch.compiler.is_compiling()
    return not plain and torch.is_grad_enabled() and x.requires_grad


class _GEGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projected: Tensor) -> Tensor:
        ctx.save_for_backward(projected)
        hidden, gate = projected.chunk(2, dim=-1)
        return F.gelu(gate).mul_(hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (projected,) = ctx.saved_tensors
        hidden, gate = projected.chunk(2, dim=-1)
        into = torch.empty_like(projected)
        into_hidden, into_gate = into.chunk(2, dim=-1)
        torch.mul(F.gelu(gate), grad, out=into_hidden)
        torch.ops.aten.gelu_backward.grad_input(grad * hidden, gate, grad_input=into_gate)
        return into


class _NormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.num_groups, ctx.eps = num_groups, eps
        return F.silu(F.group_norm(x, num_groups, weight, bias, eps), inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        learns = ctx.needs_input_grad
        inputs = [
            tensor.detach().requires_grad_(wanted)
            for tensor, wanted in zip(ctx.saved_tensors, learns, strict=False)
        ]
        with torch.enable_grad():
            x, weight, bias = inputs
            out = F.silu(F.group_norm(x, ctx.num_groups, weight, bias, ctx.eps))
        found = iter(
            torch.autograd.grad(out, [each for each in inputs if each.requires_grad], grad)
        )
        return *(next(found) if each.requires_grad else None for each in inputs), None, None
