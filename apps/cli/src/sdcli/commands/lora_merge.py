"""`sdcli lora merge`: several LoRAs made one, or made part of a model."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdcli.errors import CommandError
from sdcli.lora_file import (
    LoraFile,
    check_target,
    common_type,
    open_lora,
    require_free,
    stored_type,
    write_lora,
)
from sdcli.lora_options import Energy, Layout, MadeFor, Overwrite, Rank, Stored
from sdcli.lora_places import Places, check_layout, places_for
from sdcli.lora_reduction import (
    Kept,
    finite,
    kept_by_part,
    kept_lines,
    reduction_words,
    written_line,
)
from sdcli.models import open_named
from sdcli.options import AsJson
from sdcli.progress import counted, note
from sdcli.results import show

if TYPE_CHECKING:
    import torch

    from sd_adapters import Reduction

_LDM_NAMES = ("lora_unet_input_blocks_", "lora_unet_middle_block_", "lora_unet_output_blocks_")
_OUR_NAMES = ("lora_unet_down_blocks_", "lora_unet_mid_block_", "lora_unet_up_blocks_")

_Weighted = Sequence[tuple[Path, float]]


def merge(
    loras: Annotated[
        list[str],
        typer.Argument(help="LoRA files, each with its weight or 1: FILE:0.8.", metavar="FILE..."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="The LoRA to write, a .safetensors file; with --into the model: a name ending in "
            ".safetensors for one file in the original layout, any other for a folder.",
        ),
    ],
    into: Annotated[
        str | None,
        typer.Option(
            "--into", help="A model, as --model takes it, to whose weights they are added."
        ),
    ] = None,
    rank: Rank = None,
    energy: Energy = None,
    layout: Layout = "kohya",
    model: MadeFor = None,
    dtype: Stored = "keep",
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Make one LoRA that adds what all add; or add them to a model.

    One LoRA has the sum of their ranks and loses nothing, unless --rank or --energy make it smaller
    afterwards. A model takes every kind of LoRA, in the order given.
    """
    given = [_weighted(text) for text in loras]
    stored = stored_type(dtype)
    if into is not None:
        if rank is not None or energy is not None or model is not None or layout != "kohya":
            raise CommandError(
                "--rank, --energy, --layout and --model are for one LoRA; leave them out, or --into"
            )
        document = _into_model(given, into, out, stored, overwrite=overwrite)
        show(str(out), {**document, "dtype": dtype}, as_json=json)
        return
    from sd_adapters import Reduction

    check_layout(layout)
    check_target(out, overwrite=overwrite, sources=[path for path, _ in given])
    is_whole = rank is None and energy is None
    reduction = None if is_whole else Reduction(rank=rank, energy=energy)
    written_as = layout, places_for(layout, model)
    lines, document = _into_one(given, out, stored, reduction, written_as)
    show("\n".join(lines), document, as_json=json)


def _into_one(
    given: _Weighted,
    out: Path,
    stored: "torch.dtype | None",
    reduction: "Reduction | None",
    written_as: tuple[str, Places | None],
) -> tuple[list[str], dict[str, Any]]:
    """Write one LoRA and return what to tell of it, as lines and as a document.

    `written_as` are the layout and the model's layers, where it needs their names.
    """
    from sd_adapters import merge_loras, resize_lora

    layout, places = written_as
    first_of_two = None if places is None else places.is_sdxl
    files = [open_lora(path, first_of_two=first_of_two) for path, _ in given]
    _require_same_names(files)
    weights = [weight for _, weight in given]
    tensors = merge_loras([(f.tensors, weight) for f, weight in zip(files, weights, strict=True)])
    done = f"merged of {_told(given)}"
    kept: dict[str, Kept] = {}
    energies: dict[str, float] = {}
    if reduction is not None:
        layers = {key.partition(".")[0] for key in tensors}
        with finite("one of the files"), counted("resizing", len(layers)) as tell:
            reduced = resize_lora(tensors, reduction, tell)
        tensors, energies = dict(reduced.tensors), dict(reduced.energies)
        kept = kept_by_part(tensors, energies)
        done = f"{done}, resized to {reduction_words(reduction)}"
    if places is not None:
        tensors = places.laid_out(places.ours(tensors), layout)
    dtype = stored or common_type(file.tensors for file in files)
    written = write_lora(out, tensors, _shared(files), dtype=dtype, done=done)
    lines = [written_line(out, written), *kept_lines(kept)]
    return lines, {
        "path": out,
        "ranks": written.ranks,
        "kept": {part: asdict(one) for part, one in kept.items()},
        "energies": energies,
    }


def _into_model(
    given: _Weighted, into: str, out: Path, stored: "torch.dtype | None", *, overwrite: bool
) -> dict[str, Any]:
    """Write a model with the LoRAs in it and return what to tell of it."""
    from sd_pipeline import with_loras, write_folder, write_single_file

    model, path = open_named(into, variant=None, use_ema=False)
    require_free(out, overwrite=overwrite, sources=[path, *(lora for lora, _ in given)])
    with counted("adding LoRAs", len(given)) as tell:
        model = with_loras(model, given, tell)
    write = write_single_file if out.suffix == ".safetensors" else write_folder
    write(out, model, dtype=stored)
    note(f"{into} is a {model.family.title} ({model.task}), written with {_told(given)}")
    return {"path": out, "family": model.family.title, "task": model.task}


def _weighted(text: str) -> tuple[Path, float]:
    """Read FILE or FILE:WEIGHT; a colon that no number follows is the name's."""
    name, colon, number = text.rpartition(":")
    if not colon or Path(text).exists():
        return Path(text), 1.0
    try:
        weight = float(number)
    except ValueError:
        return Path(text), 1.0
    if not math.isfinite(weight):
        raise CommandError(f"the weight of {name} is {number}; give a number, such as 0.8")
    return Path(name), weight


def _told(given: _Weighted) -> str:
    return " + ".join(f"{path.name}:{weight:g}" for path, weight in given)


def _shared(files: Sequence[LoraFile]) -> dict[str, str]:
    """Return what the headers of all files say alike."""
    first, *others = (file.metadata for file in files)
    return {
        key: text for key, text in first.items() if all(other.get(key) == text for other in others)
    }


def _require_same_names(files: Sequence[LoraFile]) -> None:
    """Raise `CommandError` if layers have LDM's names in one file and ours in another."""
    named_as: dict[tuple[str, ...], Path] = {}
    for file in files:
        for names in (_LDM_NAMES, _OUR_NAMES):
            if any(key.startswith(names) for key in file.tensors):
                named_as[names] = file.path
    if len(named_as) > 1:
        raise CommandError(
            f"{named_as[_LDM_NAMES]} calls its layers otherwise than {named_as[_OUR_NAMES]}; write "
            "them alike first, by sdcli lora convert --layout kohya --model and an SDXL model"
        )
