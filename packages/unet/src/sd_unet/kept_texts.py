"""Keys and values of texts that are computed once for all steps of a run."""

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from sd_unet.backbones import Backbone
from sd_unet.dit import DiTBlock
from sd_unet.transformer import Attention, Project, TransformerBlock

_Version = tuple[tuple[int, int], ...]
_Kept = tuple[_Version, list[Tensor]]


@contextmanager
def texts_kept(unet: Backbone) -> Iterator[None]:
    """Let every cross-attention keep the keys and values of the texts that it is told.

    They are of one tensor of hidden states, which nobody may write to meanwhile, and are given
    again for the very same one: they live as long as it does, and at most as long as this lasts.
    Exact: projections that something is hooked to (a LoRA, a hypernetwork), that were written to,
    or that are to learn, compute anew.
    """
    attentions = _cross_attentions(unet)
    with _projected_by(attentions, [KeptProjections() for _ in attentions]):
        yield


def project_texts(unet: Backbone, hidden_states: Tensor) -> list[Sequence[Tensor]]:
    """Return the keys and values (B, T, C) of texts (B, T, D), of every cross-attention."""
    return [each.project(hidden_states, (each.to_k, each.to_v)) for each in _cross_attentions(unet)]


@contextmanager
def texts_given(unet: Backbone, texts: Sequence[Sequence[Tensor]]) -> Iterator[None]:
    """Let every cross-attention have the keys and values that `project_texts` gave."""
    with _projected_by(_cross_attentions(unet), [_GivenProjections(each) for each in texts]):
        yield


class _GivenProjections:
    """Call no layers, but give what they would."""

    def __init__(self, projected: Sequence[Tensor]) -> None:
        self._projected = projected

    def __call__(self, _states: Tensor, _layers: Sequence[nn.Linear]) -> Sequence[Tensor]:
        return self._projected


class KeptProjections:
    """Call some layers, and remember what came out for as long as what went in is there."""

    def __init__(self) -> None:
        self._kept: MutableMapping[Tensor, _Kept] = WeakTensorKeyDictionary()

    def __call__(self, states: Tensor, layers: Sequence[nn.Linear]) -> list[Tensor]:
        """Return (B, T, C) of each layer for states (B, T, D)."""
        if torch.is_grad_enabled() or any(map(_is_changed, layers)):
            return [layer(states) for layer in layers]
        # What is held: a weight that is held as int8 is another tensor whenever it is asked for.
        held = [parameter for layer in layers for parameter in layer.parameters()]
        version = tuple((one.data_ptr(), one._version) for one in held)
        found = self._kept.get(states)
        if found is None or found[0] != version:
            found = self._kept[states] = version, [layer(states) for layer in layers]
        return found[1]


def _is_changed(layer: nn.Linear) -> bool:
    """Tell whether more than the weight may say what a layer gives; and whether none can tell."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    unseen = any(parameter.is_inference() for parameter in layer.parameters())
    return bool(hooked) or layer.bias is not None or unseen


def _cross_attentions(unet: Backbone) -> list[Attention]:
    blocks = [m for m in unet.modules() if isinstance(m, TransformerBlock | DiTBlock)]
    return [block.attn2 for block in blocks if block.attn2 is not None]


@contextmanager
def _projected_by(attentions: Sequence[Attention], projects: Sequence[Project]) -> Iterator[None]:
    before = [attention.project for attention in attentions]
    for attention, project in zip(attentions, projects, strict=True):
        attention.project = project
    try:
        yield
    finally:
        for attention, project in zip(attentions, before, strict=True):
            attention.project = project
