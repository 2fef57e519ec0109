"""`sdcli scenes`: captioned pictures, drawn by code, as a folder to train on."""

from pathlib import Path
from typing import Annotated

import typer

from sdcli.options import AsJson
from sdcli.progress import progress
from sdcli.results import show


def scenes(
    folder: Annotated[Path, typer.Argument(help="Where to draw; a folder begun before goes on.")],
    count: Annotated[int, typer.Option(help="How many pictures.")] = 1000,
    seed: Annotated[int, typer.Option(help="Same seed, same pictures.")] = 0,
    size: Annotated[int, typer.Option(help="Pixels a side, 16 to 2048.")] = 128,
    two_coloured: Annotated[
        float, typer.Option(help="Share of pictures made to hold two things of two named colours.")
    ] = 0.0,
    sided: Annotated[
        float, typer.Option(help="Share of pictures of two side by side that say which is left.")
    ] = 0.0,
    marked: Annotated[
        float,
        typer.Option(
            help="Share of pictures of a dog or a cat with patches, a scarf or an ear up."
        ),
    ] = 0.0,
    cloths: Annotated[
        float, typer.Option(help="Share of mats and rugs of any colour that the caption names.")
    ] = 0.0,
    subject: Annotated[
        str | None,
        typer.Option(help="Views of one particular dog or cat instead: rex or momo."),
    ] = None,
    labelled: Annotated[
        bool,
        typer.Option(
            "--labelled", help="Draw one kind of thing a picture, and write its name as the label."
        ),
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Processes. [default: one a core]")] = None,
    json: AsJson = False,
) -> None:
    """Draw captioned scenes into a folder with a metadata.jsonl.

    With --subject, the pictures show one particular dog or cat that no scene has, for finetuning;
    another --seed gives views to hold out. With --labelled, a model that is told classes can learn
    from them: `data.labels = "data"`.
    """
    from sd_scenes import write_folder

    with progress() as bars:
        bar = bars.add_task("drawing", total=count, note="")
        write_folder(
            folder,
            count,
            seed=seed,
            size=size,
            two_coloured=two_coloured,
            sided=sided,
            marked=marked,
            cloths=cloths,
            subject=subject,
            labelled=labelled,
            workers=workers,
            on_item=lambda done: bars.update(bar, completed=done),
        )
    show(
        f"{count} pictures in {folder}",
        {
            "folder": folder,
            "count": count,
            "seed": seed,
            "size": size,
            "two_coloured": two_coloured,
            "sided": sided,
            "marked": marked,
            "cloths": cloths,
            "subject": subject,
            "labelled": labelled,
        },
        as_json=json,
    )
