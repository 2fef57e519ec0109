"""Activations that keep one tensor for the backward pass where torch's own keep two or three."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["geglu", "norm_silu"]


def geglu(projected: Tensor) -> Tensor:
    """Gate one half of (..., 2 C) by the GELU of the other, giving (..., C).

    Shazeer, arXiv:2002.05202, section 2. On the CPU the GELU is computed again in the backward
    pass: it takes little time, and kept it would be four times as large as the tokens.
    """
    if _recomputes(projected):
        out: Tensor = _GEGLU.apply(projected)
        return out
    hidden, gate = projected.chunk(2, dim=-1)
    # Into what was made just now: it is the network's largest tensor.
    return F.gelu(gate).mul_(hidden)


def norm_silu(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Return the SiLU of normed x (B, C, H, W).

    On the CPU the norm's result is not kept for the backward pass but computed again.
    """
    if norm._forward_hooks or norm._forward_pre_hooks or not _recomputes(x):
        return F.silu(norm(x))
    arguments = (x, norm.weight, norm.bias, norm.num_groups, norm.eps)
    out: Tensor = _NormSiLU.apply(*arguments)
    return out


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
