"""What the encoders say of the data before a denoiser learns: texts and latents, cached."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sd_textenc import DualTextEncoder, TextTower
from sd_train.cache import cached, module_fingerprint
from sd_train.data import PictureFolder
from sd_train.latents import TextTable, encode_folder
from sd_train.precision import autocast
from sd_train.reporter import Reporter
from sd_train.text import encode_all, tokenize
from sd_vae import AutoencoderKL


def text_table(
    encoder: TextTower | DualTextEncoder,
    texts: Sequence[Sequence[str]],
    cache_folder: Path | None,
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

    def compute() -> dict[str, Tensor]:
        reporter.message(f"encoding {len(unique)} captions")
        return encode_all(encoder, token_ids)

    values = cached(cache_folder, "text", _key(encoder, unique), compute)
    return TextTable(values=values, rows=rows, zeros_for_empty=zeros_for_empty)


def posteriors(
    vae: AutoencoderKL,
    folder: PictureFolder,
    precision: str,
    cache_folder: Path | None,
    reporter: Reporter,
) -> dict[str, Tensor]:
    """Encode the pictures of a folder: see `encode_folder`."""
    key = f"{folder.fingerprint()}/{module_fingerprint(vae)}/{precision}"

    def compute() -> dict[str, Tensor]:
        with autocast(precision, next(vae.parameters()).device):
            return encode_folder(vae, folder, reporter.message)

    return cached(cache_folder, "latents", key, compute)


def _key(encoder: TextTower | DualTextEncoder, texts: Sequence[str]) -> str:
    towers = (encoder.first, encoder.second) if isinstance(encoder, DualTextEncoder) else (encoder,)
    files = "/".join(str(tower.tokenizer.files()) for tower in towers)
    return f"{module_fingerprint(encoder)}/{files}/{texts}"
