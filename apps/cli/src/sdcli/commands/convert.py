"""`sdcli convert`: a model from one layout into another."""

from pathlib import Path
from typing import Annotated

import typer

from sdcli.errors import CommandError
from sdcli.models import open_named
from sdcli.options import AsJson, Prediction, Variant, ZeroSnr, process_changes
from sdcli.progress import note
from sdcli.results import show

_DTYPES = ("keep", "fp32", "fp16", "bf16")
_EMA = ("drop", "use", "keep")


def convert(
    source: Annotated[
        str, typer.Argument(help="A model: a folder, a file, a name of the Hub, or 'scenes'.")
    ],
    target: Annotated[
        Path,
        typer.Argument(
            help="A name ending in .safetensors for one file in the original layout, any other "
            "for a folder in the diffusers layout."
        ),
    ],
    dtype: Annotated[
        str, typer.Option("--dtype", help="fp32, fp16, bf16, or keep each tensor's own.")
    ] = "keep",
    ema: Annotated[
        str,
        typer.Option(
            "--ema",
            help="Of a file with the UNet's running average beside its weights: drop the average, "
            "use it as the weights, or keep both (a folder's non_ema variant).",
        ),
    ] = "drop",
    variant: Variant = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace TARGET if it exists.")
    ] = False,
    prediction: Prediction = None,
    zero_snr: ZeroSnr = None,
    json: AsJson = False,
) -> None:
    """Write SOURCE again in the other layout, or in the same one with other numbers."""
    _require_choice("--dtype", dtype, _DTYPES)
    _require_choice("--ema", ema, _EMA)
    if target.exists() and not overwrite:
        raise CommandError(f"{target} exists; name another place or add --overwrite")
    from sd_pipeline import DTYPES, write_folder, write_single_file

    model, path = open_named(source, variant=variant, use_ema=ema == "use")
    if target.resolve() == path.resolve():
        raise CommandError(f"{target} is the source itself; name another place")
    model = model.with_process(process_changes(prediction=prediction, zero_snr=zero_snr))
    write = write_single_file if target.suffix == ".safetensors" else write_folder
    stored = None if dtype == "keep" else DTYPES[dtype]
    write(target, model, dtype=stored, with_ema=ema == "keep")
    note(f"{source} is a {model.family.title} ({model.task}), written as {dtype}")
    document = {"path": target, "family": model.family.title, "task": model.task, "dtype": dtype}
    show(str(target), document, as_json=json)


def _require_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise CommandError(f"{option} is {value!r}; it must be {', '.join(choices)}")
