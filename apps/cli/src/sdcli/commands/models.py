"""`sdcli models`: what models there are, what one of them is, and fetching one."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdcli.hashes import known_hash
from sdcli.models import locate_model
from sdcli.options import AsJson, Variant
from sdcli.progress import note
from sdcli.results import show

if TYPE_CHECKING:
    from sd_pipeline import ModelInfo

app = typer.Typer(help="List models, look into one, download one.", no_args_is_help=False)
_COLUMNS = ("model", "family", "dtype", "size", "hash", "licence", "place")
_CLASSES_SHOWN = 40
_SINGLE_FILES = (".safetensors", ".ckpt")


@app.callback(invoke_without_command=True)
def models(
    context: typer.Context,
    local: Annotated[
        Path, typer.Option("--local", help="Folder of models on this machine.")
    ] = Path("models"),
    no_hash: Annotated[
        bool, typer.Option("--no-hash", help="Do not read the files to name them by their hash.")
    ] = False,
    json: AsJson = False,
) -> None:
    """List the embedded model, those in the Hub's cache and those in a local folder.

    The hash is the first ten digits of the SHA-256 of the file, or of a folder's UNet.
    """
    if context.invoked_subcommand is not None:
        return
    rows = [(name, *_describe(place, hashed=not no_hash)) for name, place in _all_models(local)]
    if json:
        show("", {"models": [dict(zip(_COLUMNS, row, strict=True)) for row in rows]}, as_json=True)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(markup=False, emoji=False).print(table)


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="A model, as --model takes it; it is not fetched.")],
    json: AsJson = False,
) -> None:
    """Say what a model is: family, layout, prediction, parts, and what is missing."""
    from sd_pipeline import HubName, PipelineError, cached, inspect_model

    hub_name = None if Path(model).expanduser().exists() else HubName.parse(model)
    path = locate_model(model) if hub_name is None else cached(hub_name)
    if path is None:
        raise PipelineError(f"{model} is not in the cache; fetch it with sdcli models pull {model}")
    found = inspect_model(path)
    show("\n".join(_lines(found)), asdict(found), as_json=json)


@app.command()
def pull(
    model: Annotated[
        str, typer.Argument(help="A model of the Hub: org/name, org/name/file, org/name@revision.")
    ],
    variant: Variant = None,
    json: AsJson = False,
) -> None:
    """Download what a picture needs of a model of the Hub; what is there is kept."""
    from sd_pipeline import HubName, PipelineError
    from sd_pipeline import pull as fetch

    name = HubName.parse(model)
    if name is None:
        raise PipelineError(f"{model!r} is no name of the Hub; give org/name")
    path = fetch(name, variant=variant)
    show(str(path), {"path": path}, as_json=json)


def _all_models(local: Path) -> Iterator[tuple[str, Path | str]]:
    """Yield every model's name and its place, or in its stead why it has none."""
    from sd_pipeline import cached_models
    from sd_scenes import MODEL_NAME, SceneError, model_folder

    try:
        yield MODEL_NAME, model_folder()
    except SceneError as error:
        yield MODEL_NAME, str(error)
    for name, path in cached_models():
        yield str(name), path
    if local.is_dir():
        for path in sorted(local.iterdir()):
            if (path / "model_index.json").is_file() or path.suffix in _SINGLE_FILES:
                yield str(path), path


def _describe(place: Path | str, *, hashed: bool) -> tuple[str, ...]:
    from sd_pipeline import inspect_model

    if isinstance(place, str):
        return "-", "-", "-", "-", "-", place
    try:
        found = inspect_model(place)
    except ValueError as error:
        note(f"{place}: {error}")
        return "not readable", "-", "-", "-", "-", str(place)
    family = found.family if not found.missing else f"{found.family or '?'}, incomplete"
    dtypes = sorted({dtype for part in found.parts for dtype in part.dtypes})
    digest = known_hash(place)[:10] if hashed and not found.missing else "-"
    size = f"{found.num_bytes / 1e6:,.1f} MB"
    return family, ", ".join(dtypes) or "-", size, digest, _licence(place), str(place)


def _lines(found: "ModelInfo") -> Iterator[str]:
    yield f"path        {found.path}"
    yield f"layout      {found.layout}, {found.num_bytes / 1e6:,.1f} MB"
    if found.family:
        yield f"family      {found.family}, for {found.task}"
        snr = ", zero terminal SNR" if found.zero_terminal_snr else ""
        yield f"prediction  {found.prediction}{snr} (told by: {found.prediction_told_by})"
    if found.classes:
        shown = ", ".join(found.classes[:_CLASSES_SHOWN])
        more = ", ..." * (len(found.classes) > _CLASSES_SHOWN)
        yield f"classes     {len(found.classes)}: {shown}{more}"
    for part in found.parts:
        yield (
            f"part        {part.name}: {part.num_parameters / 1e6:,.2f} M parameters, "
            f"{', '.join(part.dtypes)}"
        )
    if found.has_ema:
        yield "EMA         the UNet's running average, too"
    for line in found.missing:
        yield f"missing     {line}"
    if not found.missing:
        yield "missing     nothing"


def _licence(place: Path) -> str:
    # The Hub's convention: the model card's front matter names the licence.
    card = place / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    found = re.search(r"^license:\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else "not stated"
