"""`sdcli add-words`: further words for a model that knows a few."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from sdcli.errors import CommandError
from sdcli.models import locate_model
from sdcli.options import AsJson
from sdcli.results import show


def add_words(
    model: Annotated[str, typer.Argument(help="A model's folder, or 'scenes'.")],
    folder: Annotated[Path, typer.Argument(help="The folder to write.")],
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="WORD=KNOWN...", help="Each new word, and the known one that it begins like."
        ),
    ],
    seed: Annotated[int, typer.Option(help="Seed of what tells the two apart.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace FOLDER if it exists.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Write MODEL with a text encoder that knows further words.

    A vocabulary is closed where a model was trained on captions of few words. What known words
    give stays as it is; the UNet learns what the new ones mean by `sdcli train`.
    """
    likes = dict(_pair(text) for text in words)
    if folder.exists() and not overwrite:
        raise CommandError(f"{folder} exists; name another place or add --overwrite")
    path = locate_model(model)
    from sd_pipeline import load_model, save_model
    from sd_textenc import CLIPTextEncoder, with_words

    parts = load_model(path)
    if not isinstance(parts.text_encoder, CLIPTextEncoder):
        raise CommandError(f"{model} has not one CLIP text encoder; words can be added to one")
    grown = with_words(parts.text_encoder, likes, seed=seed)
    save_model(folder, replace(parts, text_encoder=grown))
    document = {"folder": folder, "words": sorted(likes), "vocab_size": grown.config.vocab_size}
    show(f"{folder}: {len(likes)} more words", document, as_json=json)


def _pair(text: str) -> tuple[str, str]:
    word, equals, like = text.partition("=")
    if not (word and equals and like):
        raise CommandError(f"{text!r} is not WORD=KNOWN, such as scarf=hat")
    return word.lower(), like.lower()
