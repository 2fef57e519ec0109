"""Attention that learns in half precision on a CPU: torch's kernel one way, products the other.

torch's own backward takes half as long again for a long sequence (see `sd_ops.limits`).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["attention_by_products_backward"]

_SCORES = 2**21  # of one head, at once: they stay in the cache


def attention_by_products_backward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend as `sd_ops.attention` does; nothing but `q`, `k` and `v` is kept for the backward."""
    out = _Attention.apply(q, k, v)
    assert isinstance(out, Tensor)
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)
        return F.scaled_dot_product_attention(q, k, v)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = ctx.saved_tensors
        grads = [each.new_empty(each.shape) for each in (q, k, v)]
        for image in range(q.shape[0]):
            for head in range(q.shape[1]):
                place = (image, head)
                of_head = _backward(q[place], k[place], v[place], grad[place])
                for whole, part in zip(grads, of_head, strict=True):
                    whole[place] = part
        return grads[0], grads[1], grads[2]


def _backward(q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of one head's `q` (Tq, D), `k` and `v` (T, D), a few queries at a time.

    Sums over queries are float32.
    """
    num_queries, width = q.shape
    scale = width**-0.5
    q, k, grad = q * scale, k.contiguous(), grad.contiguous()
    keys, values = k.t().contiguous(), v.t().contiguous()
    grad_q = torch.empty_like(q)
    grad_k, grad_v = (torch.zeros(each.shape, device=each.device) for each in (k, v))
    num_rows = max(1, _SCORES // k.shape[0])
    for start in range(0, num_queries, num_rows):
        rows = slice(start, start + num_rows)
        weights = (q[rows] @ keys).softmax(dim=-1)
        grad_v += weights.t() @ grad[rows]
        grad_weights = grad[rows] @ values
        # Of the softmax: weights * (grad_weights - sum(weights * grad_weights)), in one pass.
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        torch.mm(grad_scores, k, out=grad_q[rows])
        grad_k += grad_scores.t() @ q[rows]
    return grad_q.mul_(scale), grad_k, grad_v
