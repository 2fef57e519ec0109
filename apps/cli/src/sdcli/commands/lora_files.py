"""`sdcli lora`: what a LoRA's file holds, and the same in another layout, size or model."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from sdcli.commands.finetune import lora_train
from sdcli.commands.lora_extract import extract
from sdcli.commands.lora_merge import merge
from sdcli.lora_file import (
    LoraFile,
    check_target,
    common_type,
    open_lora,
    stored_type,
    write_lora,
)
from sdcli.lora_options import Energy, Layout, LoraPath, MadeFor, Out, Overwrite, Rank, Stored
from sdcli.lora_places import check_layout, places_for
from sdcli.lora_reduction import (
    finite,
    kept_by_part,
    kept_lines,
    part_title,
    reduction_words,
    written_line,
)
from sdcli.options import AsJson
from sdcli.progress import counted
from sdcli.results import show

app = typer.Typer(help="Look into LoRA files, and make others of them.", no_args_is_help=True)
_BASE_MODEL = ("ss_sd_model_name", "ss_base_model_version", "modelspec.architecture")
_COMMENT = "ss_training_comment"
_MOST_SHOWN = 200  # characters of one of the header's texts, which may be a data set's every tag


@app.command()
def info(file: LoraPath, json: AsJson = False) -> None:
    """Say what a LoRA's file holds: layers, kinds, ranks, alphas, and what its header says."""
    lora = open_lora(file)
    show("\n".join(_lines(lora)), _document(lora), as_json=json)


@app.command()
def convert(
    file: LoraPath,
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    layout: Layout,
    model: MadeFor = None,
    dtype: Stored = "keep",
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Write FILE again in another layout, or in the same one with other numbers."""
    check_layout(layout)
    check_target(out, overwrite=overwrite, sources=[file])
    stored, places = stored_type(dtype), places_for(layout, model)
    lora = open_lora(file, first_of_two=None if places is None else places.is_sdxl)
    tensors = lora.tensors
    if layout == "diffusers":
        stored = stored or common_type([tensors])  # the products with alpha are float32
    if places is not None:
        tensors = places.laid_out(places.ours(tensors), layout)
    done = f"converted from {lora.info.layout}'s layout to {layout}'s"
    written = write_lora(out, tensors, lora.metadata, dtype=stored, done=done)
    document = {"path": out, "layout": layout, "layers": len(written.layers), "dtype": dtype}
    show(written_line(out, written), document, as_json=json)


@app.command()
def resize(
    file: LoraPath,
    out: Out,
    rank: Rank = None,
    energy: Energy = None,
    layout: Layout = "kohya",
    model: MadeFor = None,
    dtype: Stored = "keep",
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Write the nearest LoRA of lower rank, and say how much of FILE it keeps.

    With both --rank and --energy, the rank is the most that there will be.
    """
    from sd_adapters import Reduction, resize_lora

    check_target(out, overwrite=overwrite, sources=[file])
    reduction, stored = Reduction(rank=rank, energy=energy), stored_type(dtype)
    places = places_for(layout, model)
    lora = open_lora(file, first_of_two=None if places is None else places.is_sdxl)
    with finite(str(file)), counted("resizing", len(lora.info.layers)) as tell:
        reduced = resize_lora(lora.tensors, reduction, tell)
    tensors = reduced.tensors
    if places is not None:
        tensors = places.laid_out(places.ours(tensors), layout)
    written = write_lora(
        out,
        tensors,
        lora.metadata,
        dtype=stored or common_type([lora.tensors]),
        done=f"resized to {reduction_words(reduction)}",
    )
    kept = kept_by_part(reduced.tensors, reduced.energies)
    document = {
        "path": out,
        "ranks": written.ranks,
        "kept": {part: asdict(one) for part, one in kept.items()},
        "energies": dict(reduced.energies),
    }
    show("\n".join([written_line(out, written), *kept_lines(kept)]), document, as_json=json)


app.command("merge")(merge)
app.command("extract")(extract)
app.command("train")(lora_train)


def _document(lora: LoraFile) -> dict[str, Any]:
    found = lora.info
    return {
        "path": lora.path,
        "layout": found.layout,
        "num_bytes": lora.path.stat().st_size,
        "num_parameters": found.num_parameters,
        "dtypes": _dtypes(lora),
        "parts": found.models,
        "kinds": found.kinds,
        "num_doras": sum(layer.is_dora for layer in found.layers),
        "ranks": found.ranks,
        "alphas": found.alphas,
        "metadata": found.metadata,
        "layers": [asdict(layer) for layer in found.layers],
    }


def _lines(lora: LoraFile) -> Iterator[str]:
    from sd_pipeline.printable import printable

    found = lora.info
    doras = sum(layer.is_dora for layer in found.layers)
    yield f"path        {lora.path}"
    yield f"layout      {found.layout}, {lora.path.stat().st_size / 1e6:,.1f} MB"
    yield f"numbers     {found.num_parameters / 1e6:,.2f} M, {', '.join(_dtypes(lora))}"
    yield f"layers      {_counted({part_title(k): n for k, n in found.models.items()})}"
    yield f"kinds       {_counted(found.kinds)}{f'; {doras} of them DoRA' if doras else ''}"
    yield f"ranks       {_counted(found.ranks)}"
    yield f"alphas      {_counted(found.alphas)}"
    said = {printable(key): printable(text) for key, text in found.metadata.items()}
    base = [said[key] for key in _BASE_MODEL if key in said]
    yield f"base model  {', '.join(base) or 'not stated'}"
    yield f"comment     {_short(said.get(_COMMENT, 'none'))}"
    for key, text in sorted(said.items()):
        if key not in (*_BASE_MODEL, _COMMENT):
            yield f"header      {key}: {_short(text)}"


def _dtypes(lora: LoraFile) -> list[str]:
    return sorted({str(lora.tensors[key].dtype).removeprefix("torch.") for key in lora.tensors})


def _counted(counts: Mapping[Any, int]) -> str:
    """Tell how many layers there are of each, the most frequent first."""
    rows = sorted(counts.items(), key=lambda row: -row[1])
    return (
        ", ".join(
            f"{value:g} ({number})" if isinstance(value, float | int) else f"{value} {number}"
            for value, number in rows
        )
        or "none"
    )


def _short(text: str) -> str:
    cut = len(text) - _MOST_SHOWN
    return text if cut <= 0 else f"{text[:_MOST_SHOWN]}... ({cut} more characters)"
