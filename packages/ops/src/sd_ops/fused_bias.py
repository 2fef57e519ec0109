"""Linear layers on the CPU whose bias is added within the product."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["linear_fused", "may_fuse_bias"]

# What torch.compile puts in a linear layer's place; not every build has it.
_PRODUCT: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def may_fuse_bias(bias: Tensor | None) -> bool:
    """Tell whether there is a bias, no gradient is wanted, and this torch offers what it takes."""
    return (
        bias is not None
        and _PRODUCT is not None
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def linear_fused(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Map x (..., C) to (..., O) as `F.linear` does.

    torch's own writes the bias to every row first, and has the product add to what it reads again.
    """
    assert _PRODUCT is not None
    out: Tensor = _PRODUCT(x, weight, bias, "none", [], "")
    return out
