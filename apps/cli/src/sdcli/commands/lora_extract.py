"""`sdcli lora extract`: what training has made of a model, as a LoRA."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sdcli.errors import CommandError
from sdcli.lora_file import check_target, common_type, stored_type, write_lora
from sdcli.lora_options import Energy, Layout, Out, Overwrite, Rank, Stored
from sdcli.lora_places import check_layout, places_of, weights_of
from sdcli.lora_reduction import finite, kept_by_part, kept_lines, reduction_words, written_line
from sdcli.models import open_named
from sdcli.options import AsJson
from sdcli.progress import counted
from sdcli.results import show

_PARTS = ("unet", "text")


def extract(
    base: Annotated[str, typer.Argument(help="The model as it was, as --model takes it.")],
    tuned: Annotated[str, typer.Argument(help="The model that was made of it.")],
    out: Out,
    rank: Rank = None,
    energy: Energy = None,
    parts: Annotated[
        str, typer.Option("--parts", help="Whose change: unet, text, or both with a comma between.")
    ] = "unet,text",
    layout: Layout = "kohya",
    dtype: Stored = "keep",
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Write the LoRA that makes TUNED of BASE, as nearly as its rank can, and say how nearly.

    With both --rank and --energy, the rank is the most that there will be.
    """
    from sd_adapters import Reduction, extract_lora

    check_layout(layout)
    check_target(out, overwrite=overwrite, sources=[Path(base), Path(tuned)])
    reduction, stored, chosen = (
        Reduction(rank=rank, energy=energy),
        stored_type(dtype),
        _read(parts),
    )
    before, after = (open_named(name, variant=None, use_ema=False)[0] for name in (base, tuned))
    weights, places = weights_of(after, chosen), places_of(before)
    keys = {name: key for name, key in places.keys.items() if key in weights}
    original = weights_of(before, chosen)
    with finite(f"{base} or {tuned}"), counted("comparing", len(original)) as tell:
        found = extract_lora(original, weights, keys, reduction, tell)
    tensors, energies = places.kohya(found.tensors), places.kohya(found.energies)
    written = write_lora(
        out,
        places.laid_out(found.tensors, layout),
        {"modelspec.architecture": f"{before.family.architecture}/lora"},
        dtype=stored or common_type([weights]),
        done=f"extracted from {Path(tuned).name} over {Path(base).name}, "
        f"{reduction_words(reduction)}",
    )
    kept = kept_by_part(tensors, energies)
    lines = [written_line(out, written), *kept_lines(kept)]
    if found.left_out:
        from sd_checkpoint import name_keys

        lines.append(
            f"not held: {len(found.left_out)} norms, biases or embeddings changed, too: "
            f"{name_keys(found.left_out)}"
        )
    document = {
        "path": out,
        "ranks": written.ranks,
        "kept": {part: asdict(one) for part, one in kept.items()},
        "energies": energies,
        "left_out": list(found.left_out),
    }
    show("\n".join(lines), document, as_json=json)


def _read(parts: str) -> list[str]:
    chosen = [part.strip() for part in parts.split(",")]
    strange = [part for part in chosen if part not in _PARTS]
    if strange:
        raise CommandError(f"--parts is {parts!r}; it must be unet, text, or unet,text")
    return chosen
