"""Textual inversion: more rows for a token embedding that knows nothing of them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sd_adapters.adapter import AdapterError

_TOKEN_EMBEDDING = "token_embedding"


class TextualInversion(nn.Module):
    """Give the ids from ``first_id`` on vectors (n, D) of their own, the only thing that learns.

    Gal et al., arXiv:2208.01618, section 3.2. One adapter serves one text tower. The ids are the
    tokenizer's affair: whoever joins the two has it make of the name the ids ``first_id`` to
    ``first_id + n - 1``, which no other word has, and which lie beyond the embedding's own rows.
    """

    def __init__(self, vectors: Tensor, first_id: int) -> None:
        super().__init__()
        if vectors.ndim != 2:
            raise AdapterError(
                f"the vectors have the shape {tuple(vectors.shape)}; give (n, width)"
            )
        self.vectors = nn.Parameter(vectors.detach().clone())
        self.ids = range(first_id, first_id + len(vectors))
        self._handles: list[RemovableHandle] = []

    def inject(self, model: nn.Module) -> None:
        """Attach to a token embedding, or to the one of a text tower, and move to its device.

        Raises ``AdapterError`` if it is injected already, if the model has not one token embedding
        but none or several, or if its width or its number of rows leaves no place for these.
        """
        if self._handles:
            raise AdapterError("this embedding is injected already: eject it first")
        table = _token_embedding(model)
        if self.vectors.shape[1] != table.embedding_dim:
            raise AdapterError(
                f"the embedding has vectors of width {self.vectors.shape[1]}, and the text encoder "
                f"{table.embedding_dim}: it was made for another family of models"
            )
        if self.ids.start < table.num_embeddings:
            raise AdapterError(
                f"the ids from {self.ids.start} on are taken: "
                f"the text encoder has {table.num_embeddings} words, give an id from there on"
            )
        self.to(table.weight.device)
        call = _Call()
        self._handles = [
            table.register_forward_pre_hook(self._hide(call)),
            table.register_forward_hook(self._replace(call)),
        ]

    def eject(self) -> None:
        """Let go of the model, which is bit for bit as it was; does nothing if not injected."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def fuse(self) -> None:
        """Raise ``AdapterError``: the model's table of words would have to grow."""
        raise AdapterError("an embedding cannot be fused into the weights: leave it injected")

    def _hide(self, call: "_Call") -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        """Put id 0 in the place of ours, which the table would not know."""

        def hook(_table: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            token_ids, *others = inputs
            call.rows = token_ids - self.ids.start
            call.ours = (call.rows >= 0) & (call.rows < len(self.ids))
            return torch.where(call.ours, 0, token_ids), *others

        return hook

    def _replace(self, call: "_Call") -> Callable[[nn.Module, object, Tensor], Tensor]:
        """Put our vectors where our ids were."""

        def hook(_table: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            assert call.rows is not None
            assert call.ours is not None
            rows = torch.where(call.ours, call.rows, 0)
            vectors = self.vectors.to(output.dtype)[rows]
            return torch.where(call.ours[..., None], vectors, output)

        return hook


@dataclass(slots=True)
class _Call:
    """What of a call's ids is ours, kept from before the table until after it."""

    rows: Tensor | None = None
    ours: Tensor | None = None


def _token_embedding(model: nn.Module) -> nn.Embedding:
    if isinstance(model, nn.Embedding):
        return model
    found = [
        module
        for path, module in model.named_modules()
        if path.rpartition(".")[2] == _TOKEN_EMBEDDING and isinstance(module, nn.Embedding)
    ]
    if len(found) != 1:
        raise AdapterError(
            f"the model has {len(found)} token embeddings; give one text tower at a time"
        )
    return found[0]
