"""`sdcli mix`: a model between two others."""

from pathlib import Path
from typing import Annotated

import typer

from sdcli.errors import CommandError
from sdcli.models import locate_model
from sdcli.options import AsJson
from sdcli.results import show

_DTYPES = ("fp32", "fp16", "bf16")


def mix(
    model: Annotated[str, typer.Argument(help="A model: a folder, a file or 'scenes'.")],
    other: Annotated[str, typer.Argument(help="Another one of the same architecture.")],
    folder: Annotated[Path, typer.Argument(help="The folder to write.")],
    share: Annotated[
        float, typer.Option(help="How much of OTHER there is in it: 0 is MODEL, 1 is OTHER.")
    ] = 0.5,
    only: Annotated[
        list[str] | None,
        typer.Option(help="A network to mix: unet, vae or text_encoder; others are MODEL's."),
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="fp32, fp16 or bf16.")] = "fp16",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace FOLDER if it exists.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Write a model whose weights lie between those of MODEL and OTHER: a weighted sum.

    Of two that were trained on from the same model the middle is often better than either.
    """
    if dtype not in _DTYPES:
        raise CommandError(f"--dtype is {dtype!r}; it must be {', '.join(_DTYPES)}")
    if folder.exists() and not overwrite:
        raise CommandError(f"{folder} exists; name another place or add --overwrite")
    paths = [locate_model(name) for name in (model, other)]
    if folder.resolve() in [path.resolve() for path in paths]:
        raise CommandError(f"{folder} is one of the models itself; name another place")
    from sd_pipeline import DTYPES, NETWORKS, load_model, mix_models, save_model

    first, second = (load_model(path) for path in paths)
    mix_models(first, second, share, only or NETWORKS)
    save_model(folder, first, dtype=DTYPES[dtype])
    document = {
        "folder": folder,
        "models": [model, other],
        "share": share,
        "only": only,
        "dtype": dtype,
    }
    mixed = f"; {' and '.join(only)} alone" if only else ""
    text = f"{folder}: {1 - share:g} of {model}, {share:g} of {other}{mixed}"
    show(text, document, as_json=json)
