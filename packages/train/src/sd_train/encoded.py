"""What the encoders say of the data before a denoiser learns: texts and latents, cached."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sd_textenc import DualTextEncoder, TextTower
from sd_train.cache import PIECE, Cache, Rows, module_fingerprint
from sd_train.config import DataConfig
from sd_train.data import PictureFolder
from sd_train.data_buckets import by_size, name_of
from sd_train.latents import TextTable, encode_pictures
from sd_train.precision import autocast
from sd_train.reporter import Reporter
from sd_train.text import encode_all, tokenize
from sd_vae import AutoencoderKL

_TELL_EVERY = 32  # pieces


def run_cache(folder: Path | None, config: DataConfig, reporter: Reporter) -> Cache:
    """Return the cache of a run, of the size that its settings allow."""
    return Cache(folder=folder, limit=round(config.cache_gb * 1e9), tell=reporter.message)


def text_table(
    encoder: TextTower | DualTextEncoder,
    texts: Sequence[Sequence[str]],
    cache: Cache,
    reporter: Reporter,
    *,
    live: bool = False,
    zeros_for_empty: bool = False,
) -> TextTable:
    """Prepare the K texts of each of N pictures: encoded, or as ids where the encoder is `live`.

    `zeros_for_empty` is as in `TextTable`.
    """
    distinct = {text for each in texts for text in each}
    unique = [*sorted(distinct - {""}), ""]
    row_of = {text: row for row, text in enumerate(unique)}
    rows = torch.tensor([[row_of[text] for text in each] for each in texts])
    token_ids, lines = tokenize(encoder, unique)
    for line in lines:
        reporter.message(line)
    if live:
        return TextTable(values=token_ids, rows=rows, zeros_for_empty=zeros_for_empty)

    parts = [slice(start, start + PIECE) for start in range(0, len(unique), PIECE)]

    def compute(number: int) -> dict[str, Tensor]:
        if number % _TELL_EVERY == 0:
            reporter.message(f"encoding captions: {parts[number].start} of {len(unique)}")
        return encode_all(encoder, {name: ids[parts[number]] for name, ids in token_ids.items()})

    known = _fingerprint(encoder)
    values = cache.rows("text", [f"{known}/{unique[part]}" for part in parts], compute)
    return TextTable(values=values, rows=rows, zeros_for_empty=zeros_for_empty)


def posteriors(
    vae: AutoencoderKL,
    folder: PictureFolder,
    precision: str,
    cache: Cache,
    reporter: Reporter,
) -> dict[str, Tensor | Rows]:
    """Encode the pictures of a folder, as `encode_pictures` does.

    With buckets there is one of each tensor a size, `mean/768x320` and so on, of the pictures of
    that size in their order.
    """
    known, found = f"{module_fingerprint(vae)}/{precision}", {}
    for size, members in by_size(range(len(folder)), folder.sizes).items():
        parts = [members[start : start + PIECE] for start in range(0, len(members), PIECE)]

        def compute(number: int, parts: Sequence[Sequence[int]] = parts) -> dict[str, Tensor]:
            if number % _TELL_EVERY == 0:
                done = number * PIECE
                reporter.message(f"encoding pictures: {done} of {sum(map(len, parts))}")
            with autocast(precision, next(vae.parameters()).device):
                return encode_pictures(vae, folder, parts[number])

        keys = [f"{folder.fingerprint(part)}/{known}" for part in parts]
        suffix = f"/{name_of(size)}" * folder.config.buckets
        for name, values in cache.rows("latents", keys, compute).items():
            found[f"{name}{suffix}"] = values
    return found


def _fingerprint(encoder: TextTower | DualTextEncoder) -> str:
    towers = (encoder.first, encoder.second) if isinstance(encoder, DualTextEncoder) else (encoder,)
    files = "/".join(str(tower.tokenizer.files()) for tower in towers)
    return f"{module_fingerprint(encoder)}/{files}"
