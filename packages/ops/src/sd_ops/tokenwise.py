"""Layers one after the other, for some tokens at a time."""

import torch
from torch import Tensor, nn

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
        number = tokens.shape[:-1].numel()
        if not self.fast or number < _MANY or not _may(tokens):
            return self._through(tokens)
        parts = torch.split(tokens.reshape(1, number, -1), _TOKENS, dim=1)
        first = self._through(parts[0])
        out = first.new_empty(1, number, first.shape[-1])
        out[:, :_TOKENS] = first
        for index, part in enumerate(parts[1:], start=1):
            out[:, index * _TOKENS : (index + 1) * _TOKENS] = self._through(part)
        return out.view(*tokens.shape[:-1], -1)

    def _through(self, tokens: Tensor) -> Tensor:
        for layer in self:
            tokens = layer(tokens)
        return tokens


def _may(tokens: Tensor) -> bool:
    # A compiler would write the loop out, and sees what stays in the cache by itself.
    return (
        tokens.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )
