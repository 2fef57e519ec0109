"""Attention that learns in half precision on a CPU: torch's kernel one way, products the other.

torch's own backward takes half as long again for a long sequence (see `sd_ops.limits`).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["attention_by_products_backward"]

_SCORES = 2**20  # of one head, at once: they stay in the cache
_FEW = 32  # queries that tell how many keys a head looks at


def attention_by_products_backward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend as `sd_ops.attention` does; for the backward no scores and no weights are kept."""
    out = _Attention.apply(q, k, v)
    assert isinstance(out, Tensor)
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # What `F.scaled_dot_product_attention` calls here; that gives no logarithms of its sums.
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, log_sums = kernel(q, k, v)
        ctx.save_for_backward(q, k, v, out, log_sums)
        assert isinstance(out, Tensor)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, out, log_sums = ctx.saved_tensors
        grads = [each.new_empty(each.shape) for each in (q, k, v)]
        for image in range(q.shape[0]):
            for head in range(q.shape[1]):
                place = (image, head)
                of_head = _backward(*(each[place] for each in (q, k, v, out, log_sums, grad)))
                for whole, part in zip(grads, of_head, strict=True):
                    whole[place] = part
        return grads[0], grads[1], grads[2]


def _backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sums: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of one head's `q` (Tq, D), `k` and `v` (T, D), a few queries at a time.

    The weights are exp(scores - `log_sums` (Tq,)), and the gradient of the scores is weights *
    (gradient of the weights - sum(out * grad)); both differences are made within the products, as
    two further columns. Sums over queries are float32.
    """
    num_queries, width = q.shape
    scale = width**-0.5
    q, k = q * scale, k.contiguous()
    # In half precision a score keeps most digits near 0, and those count most that are as large as
    # the weights of so many keys as are looked at. The gradient makes up for what is taken off.
    looked = (q[:: max(1, num_queries // _FEW)].float() @ k.t().float()).softmax(dim=-1)
    shift = torch.special.entr(looked).sum(-1).mean()
    grad = grad.float() * torch.exp(-shift)
    sums = (grad * out.float()).sum(-1)
    grad = grad.to(q.dtype)
    shifted, differing = _less(q, log_sums - shift), _less(grad, sums)
    keys, values = (_with_ones(each).t().contiguous() for each in (k, v))
    grad_q = torch.empty_like(q)
    grad_k, grad_v = (torch.zeros(each.shape, device=each.device) for each in (k, v))
    num_rows = max(1, _SCORES // k.shape[0])
    for start in range(0, num_queries, num_rows):
        rows = slice(start, start + num_rows)
        weights = (shifted[rows] @ keys).exp_()
        grad_v += weights.t() @ grad[rows]
        grad_scores = (differing[rows] @ values).mul_(weights)
        torch.mm(grad_scores, k, out=grad_q[rows])
        grad_k += grad_scores.t() @ q[rows]
    return grad_q.mul_(scale), grad_k, grad_v


def _less(rows: Tensor, amounts: Tensor) -> Tensor:
    """Let the product of rows (T, D) with `_with_ones` be less by float32 amounts (T,)."""
    most = amounts.to(rows.dtype)
    rest = (amounts - most.float()).to(rows.dtype)
    return torch.cat([rows, -most[:, None], -rest[:, None]], dim=1)


def _with_ones(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows.new_ones(rows.shape[0], 2)], dim=1)
