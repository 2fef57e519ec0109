"""Layers one after the other, for some tokens at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sd_ops.fused_layers import residual

__all__ = ["Tokenwise"]

_TOKENS = 1024  # at once
_MANY = 4096  # from here on: what a wide layer gives of fewer is near the processor as it is


class Tokenwise(nn.Sequential):
    """Layers that take each token by itself, with the state dict of an `nn.Sequential`.

    After `use_fast_paths`, on the CPU and without gradients, some tokens at a time go through all
    of them where there are many, so that what is between the layers stays in the cache.
    """

    fast = False

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (..., C) to (..., O)."""
        return self._by_parts(tokens, None)

    def with_shortcut(self, tokens: Tensor, *, shortcut: Tensor) -> Tensor:
        """Return `shortcut` (..., O) + the result."""
        return self._by_parts(tokens, shortcut)

    def _by_parts(self, tokens: Tensor, shortcut: Tensor | None) -> Tensor:
        number = tokens.shape[:-1].numel()
        if not self.fast or number < _MANY or not _may(tokens):
            return self._through(tokens, shortcut)
        parts = _split(tokens, number)
        shortcuts = [None] * len(parts) if shortcut is None else _split(shortcut, number)
        first = self._through(parts[0], shortcuts[0])
        out = first.new_empty(1, number, first.shape[-1])
        out[:, :_TOKENS] = first
        for index in range(1, len(parts)):
            done = self._through(parts[index], shortcuts[index])
            out[:, index * _TOKENS : (index + 1) * _TOKENS] = done
        return out.view(*tokens.shape[:-1], -1)

    def _through(self, tokens: Tensor, shortcut: Tensor | None) -> Tensor:
        for layer in self[:-1]:
            tokens = layer(tokens)
        last = self[-1]
        return last(tokens) if shortcut is None else residual(last, tokens, shortcut=shortcut)


def _split(tokens: Tensor, number: int) -> Sequence[Tensor]:
    return torch.split(tokens.reshape(1, number, -1), _TOKENS, dim=1)


def _may(tokens: Tensor) -> bool:
    # A compiler would write the loop out, and sees what stays in the cache by itself.
    return (
        tokens.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )
