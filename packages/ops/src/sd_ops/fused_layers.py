"""A layer together with what is done with its result, in one go where that is to be had."""

from collections.abc import Callable

from torch import Tensor, nn

from sd_ops.activations import geglu

__all__ = ["gated", "residual"]


def gated(layer: nn.Module, x: Tensor) -> Tensor:
    """Return `geglu(layer(x))`, (..., C) for a layer of 2 C outputs.

    In one go by a layer whose class has a method `gated` that does not decline by None.
    """
    if (fused := _fused(layer, "gated")) and (out := fused(x)) is not None:
        return out
    return geglu(layer(x))


def residual(layer: nn.Module, *given: Tensor, shortcut: Tensor) -> Tensor:
    """Return `shortcut + layer(*given)`.

    In one go by a layer whose class has a method `with_shortcut` that does not decline by None.
    """
    fused = _fused(layer, "with_shortcut")
    if fused and (out := fused(*given, shortcut=shortcut)) is not None:
        return out
    added: Tensor = shortcut + layer(*given)
    return added


def _fused(layer: nn.Module, name: str) -> Callable[..., Tensor | None] | None:
    """Return a method of the layer's own class, None where somebody looks at what forward gives."""
    looked_at = layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__
    if looked_at or name not in vars(type(layer)):
        return None
    method: Callable[..., Tensor | None] = getattr(layer, name)
    return method
