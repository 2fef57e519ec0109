"""One projection within torch's own attention, which reads its weights past any module."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

_PACKED = ("q_proj", "k_proj", "v_proj")
PROJECTIONS = (*_PACKED, "out_proj")


class AttentionProjection:
    """Stand for one linear of ``nn.MultiheadAttention``, as open_clip's text towers have it.

    Queries, keys and values share one packed weight, and no hook on a linear is ever called: so
    here an addition goes into the weight itself, for the time of the attention's forward pass.
    ``side`` is one of ``PROJECTIONS``.
    """

    def __init__(self, attention: nn.MultiheadAttention, side: str) -> None:
        self.in_features = self.out_features = attention.embed_dim
        self._attention = attention
        start = 0
        if side in _PACKED:
            start = _PACKED.index(side) * self.out_features
            self._owner: nn.Module = attention
            self._keys = {"weight": "in_proj_weight", "bias": "in_proj_bias"}
        else:
            self._owner = attention.out_proj
            self._keys = {"weight": "weight", "bias": "bias"}
        self._rows = slice(start, start + self.out_features)
        # Kept, for while the attention computes another adapter's sum may stand in its place.
        self._parameters = {kind: self._owner._parameters[key] for kind, key in self._keys.items()}

    @property
    def weight(self) -> Tensor:
        """The projection's rows (out, in) of the model's weight; writing there writes the model."""
        weight = self._parameters["weight"]
        assert weight is not None
        return weight[self._rows]

    @property
    def bias(self) -> Tensor | None:
        """The projection's part (out,) of the model's bias, if it has one."""
        bias = self._parameters["bias"]
        return None if bias is None else bias[self._rows]

    def attach(self, kind: str, addition: Callable[[], Tensor]) -> list[RemovableHandle]:
        """Add to the "weight" or the "bias" whenever the attention computes.

        State dict and parameters are the same in between. Several may be attached, and let go in
        any order.
        """
        key, owner, replaced = self._keys[kind], self._owner, list[Tensor | None]()

        def put(_attention: nn.Module, _inputs: object) -> None:
            current = owner._parameters[key]
            assert current is not None
            rows = current[self._rows]
            summed = (rows.float() + addition()).to(rows.dtype)
            parts = [current[: self._rows.start], summed, current[self._rows.stop :]]
            replaced.append(current)
            # A plain tensor, that gradients flow through; nothing sees it but the forward pass.
            owner._parameters[key] = torch.cat(parts)  # type: ignore[assignment]

        def put_back(_attention: nn.Module, _inputs: object, _output: object) -> None:
            if replaced:
                owner._parameters[key] = replaced.pop()  # type: ignore[assignment]

        return [
            self._attention.register_forward_pre_hook(put),
            # The last to put goes back first, and all do, even when the forward pass fails.
            self._attention.register_forward_hook(put_back, prepend=True, always_call=True),
        ]
