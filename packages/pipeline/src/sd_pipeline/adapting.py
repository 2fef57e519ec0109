"""Adapters while a picture is drawn: opened once, attached, and taken off again."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from sd_adapters import (
    AdapterError,
    Embedding,
    Hypernetwork,
    Lora,
    TextualInversion,
    load_embedding,
    load_hypernetwork,
    load_loras,
)
from sd_pipeline.adapter_places import UNET, adapter_aliases, adapter_models
from sd_pipeline.adapter_use import AdapterUse
from sd_pipeline.errors import PipelineError
from sd_pipeline.info import sha256
from sd_pipeline.parts import Parts

_Opened = dict[str, Lora] | Hypernetwork | Embedding


class AdapterShelf:
    """Keep the adapters of one model that were opened, so that no file is read twice."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str, str], _Opened] = {}
        self._hashes: dict[str, str] = {}

    def known(self, use: AdapterUse) -> AdapterUse:
        """Return a use with its file's hash; raises `PipelineError` where there is no such file."""
        if use.file not in self._hashes:
            path = Path(use.file)
            if not path.is_file():
                raise PipelineError(f"there is no file {use.file}; name the {use.kind}'s file")
            self._hashes[use.file] = sha256(path)
        return replace(use, sha256=self._hashes[use.file])

    @contextmanager
    def attached(
        self,
        parts: Parts,
        uses: Sequence[AdapterUse],
        *,
        fuse: bool = False,
        device: torch.device | None = None,
    ) -> Iterator[None]:
        """Let the networks of `parts`, always the same, compute with some adapters.

        Afterwards all is bit for bit as it was. With `fuse` LoRAs are written into the weights
        meanwhile: it takes a moment, and then they cost nothing. `device` is where the networks
        will compute, None where they are. Raises `PipelineError` where a file is missing or named
        twice, `AdapterError` where it is another model's, and `CheckpointError` where it is broken.
        """
        twice = [use.file for place, use in enumerate(uses) if use.file in _files(uses[:place])]
        if twice:
            raise PipelineError(f"{twice[0]} is named twice; once is enough, at the sum")
        with ExitStack() as stack:
            for use in uses:
                opened = self._open(parts, use)
                if isinstance(opened, Embedding):
                    _teach(stack, parts, opened, device)
                elif isinstance(opened, Hypernetwork):
                    opened.strength = use.strength
                    _inject(stack, opened, parts.unet, device)
                elif fuse:  # into weights that are where they are now
                    for lora in _attach(stack, parts, opened, use, None):
                        lora.fuse()
                else:
                    _attach(stack, parts, opened, use, device)
            yield

    def _open(self, parts: Parts, use: AdapterUse) -> _Opened:
        key = use.kind, use.file
        if key not in self._opened:
            self.known(use)
            self._opened[key] = _read(parts, use)
        return self._opened[key]


def _files(uses: Sequence[AdapterUse]) -> list[str]:
    return [use.file for use in uses]


def _read(parts: Parts, use: AdapterUse) -> _Opened:
    if use.kind == "embedding":
        embedding = load_embedding(use.file, use.name)
        embedding.require_widths([tower.config.hidden_size for tower in parts.towers])
        return embedding
    if use.kind == "hypernetwork":
        return load_hypernetwork(use.file).requires_grad_(False).eval()
    loras = load_loras(use.file, adapter_models(parts), adapter_aliases(parts))
    for lora in loras.values():
        lora.requires_grad_(False).eval()
    return loras


def _inject(
    stack: ExitStack,
    adapter: Lora | Hypernetwork | TextualInversion,
    network: nn.Module,
    device: torch.device | None,
) -> None:
    adapter.inject(network)
    stack.callback(adapter.eject)
    if device is not None:
        adapter.to(device)  # no part of the network, so that it does not go along with it


def _attach(
    stack: ExitStack,
    parts: Parts,
    loras: dict[str, Lora],
    use: AdapterUse,
    device: torch.device | None,
) -> Iterable[Lora]:
    models = adapter_models(parts)
    known = [name for name, _ in parts.unet.named_modules()]
    for block in use.blocks:
        if not any(f"{name}.".startswith(f"{block}.") for name in known):
            raise AdapterError(
                f"the UNet has no block {block!r}; give the beginning of a module's path, such as "
                f"mid_block or {known[-1]}"
            )
    for prefix, lora in loras.items():
        text = use.strength if use.text_strength is None else use.text_strength
        lora.strength = use.strength if prefix == UNET else text
        lora.block_strengths = dict(use.blocks) if prefix == UNET else {}
        _inject(stack, lora, models[prefix], device)
    return loras.values()


def _teach(
    stack: ExitStack, parts: Parts, embedding: Embedding, device: torch.device | None
) -> None:
    """Give every tower the vectors, and its tokenizer the name."""
    for tower, vectors in zip(parts.towers, embedding.vectors, strict=True):
        first_id = tower.tokenizer.next_id(tower.config.vocab_size)
        rows = TextualInversion(vectors, first_id).requires_grad_(False)
        _inject(stack, rows, tower.body, device)
        stack.callback(setattr, tower, "tokenizer", tower.tokenizer)
        tower.tokenizer = tower.tokenizer.with_names({embedding.name: rows.ids})
