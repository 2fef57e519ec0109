"""Self-attention of fewer tokens: those that are most alike are one while it lasts."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sd_unet.backbones import Backbone
from sd_unet.errors import UNetInputError
from sd_unet.transformer import Attention, TransformerBlock
from sd_unet.unet import UNet

MAX_MERGED = 0.75
"""The largest share: one token of each square of four stays."""


@contextmanager
def tokens_merged(unet: Backbone, ratio: float, size: Sequence[int]) -> Iterator[None]:
    """Merge a share of the tokens, 0 to 0.75, for the self-attention of the finest level.

    Bolya and Hoffman, "Token Merging for Fast Stable Diffusion", arXiv:2303.17604, section 4. Of
    every square of four tokens one, the same at every call, may have others merged into it, by
    their mean; afterwards each gets the attention's result of what it was merged into. Not exact,
    but for a share of 0. ``size`` is that of the latents, (height, width). Raises
    ``UNetInputError`` for a DiT, whose layers are all of one level.
    """
    if not isinstance(unet, UNet):
        raise UNetInputError("tokens are merged in a UNet alone: leave --merge-tokens out")
    with ExitStack() as hooks:
        if ratio > 0:
            level = unet.config.attention_levels.index(True)
            rows, columns = (-(-side // 2**level) for side in size)
            places = _places(rows, columns)
            for attention in _self_attentions(unet, level):
                merging = _Merging(ratio, places)
                hooks.enter_context(attention.register_forward_pre_hook(merging.before))
                hooks.enter_context(attention.register_forward_hook(merging.after))
        yield


class _Places(NamedTuple):
    """The numbers of the tokens that others may be merged into, and of the others."""

    into: Tensor
    others: Tensor


class _Matches(NamedTuple):
    """Of each picture, numbers among the others: merged (B, m), kept (B, k); and into which."""

    merged: Tensor
    kept: Tensor
    into: Tensor


class _Merging:
    """Merge before one attention, and take apart after it."""

    def __init__(self, ratio: float, places: _Places) -> None:
        self._ratio = ratio
        self._places = places
        self._matches: _Matches | None = None

    def before(self, _: Attention, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        tokens = inputs[0]
        into, others = tokens[:, self._places.into], tokens[:, self._places.others]
        number = min(int(self._ratio * tokens.shape[1]), others.shape[1])
        self._matches = matches = _matched(others, into, number)
        index = _wide(matches.into, tokens)
        merged = into.scatter_reduce(1, index, _picked(others, matches.merged), "mean")
        fewer = torch.cat([_picked(others, matches.kept), merged], dim=1)
        return fewer, fewer

    def after(self, _: Attention, __: tuple[Tensor, Tensor], output: Tensor) -> Tensor:
        matches, self._matches = self._matches, None
        assert matches is not None
        num_kept = matches.kept.shape[1]
        kept, into = output[:, :num_kept], output[:, num_kept:]
        num_others = len(self._places.others)
        others = output.new_empty(len(output), num_others, output.shape[2])
        others.scatter_(1, _wide(matches.kept, output), kept)
        others.scatter_(1, _wide(matches.merged, output), _picked(into, matches.into))
        whole = output.new_empty(len(output), num_others + into.shape[1], output.shape[2])
        whole[:, self._places.into] = into
        whole[:, self._places.others] = others
        return whole


def _matched(others: Tensor, into: Tensor, number: int) -> _Matches:
    """Find the `number` of the others that are most like what they would be merged into."""
    alike = F.normalize(others, dim=-1) @ F.normalize(into, dim=-1).transpose(1, 2)
    likeness, nearest = alike.max(dim=-1)
    order = likeness.argsort(dim=-1, descending=True, stable=True)
    merged, kept = order[:, :number], order[:, number:]
    return _Matches(merged=merged, kept=kept, into=nearest.gather(1, merged))


def _places(rows: int, columns: int) -> _Places:
    """Choose one token of each whole square of four, in no pattern that a picture would show."""
    cells = torch.Generator().manual_seed(0)
    corner = torch.randint(4, (rows // 2, columns // 2), generator=cells)
    y = 2 * torch.arange(rows // 2)[:, None] + corner // 2
    x = 2 * torch.arange(columns // 2)[None, :] + corner % 2
    chosen = torch.zeros(rows * columns, dtype=torch.bool)
    chosen[(y * columns + x).flatten()] = True
    return _Places(into=chosen.nonzero()[:, 0], others=(~chosen).nonzero()[:, 0])


def _self_attentions(unet: UNet, level: int) -> list[Attention]:
    blocks = unet.down_blocks[level], unet.up_blocks[-1 - level]
    return [
        module.attn1
        for block in blocks
        for module in block.modules()
        if isinstance(module, TransformerBlock)
    ]


def _picked(tokens: Tensor, numbers: Tensor) -> Tensor:
    """Return tokens (B, n, C) of (B, N, C) by their numbers (B, n)."""
    return tokens.gather(1, _wide(numbers, tokens))


def _wide(numbers: Tensor, tokens: Tensor) -> Tensor:
    return numbers[..., None].expand(-1, -1, tokens.shape[2])
