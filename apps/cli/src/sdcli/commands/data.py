"""`sdcli data`: a look at training data before it is learnt from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdcli.errors import CommandError
from sdcli.options import AsJson
from sdcli.progress import note, progress
from sdcli.results import show

if TYPE_CHECKING:
    from sd_textenc import Tokenizer
    from sd_train import DataConfig
    from sd_train.data_check import DataReport

app = typer.Typer(help="Look at training data.", no_args_is_help=True)


@app.command()
def check(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A folder of captioned pictures, with subfolders such as 10_dog if so wanted; "
            "kohya's dataset TOML; or tar shards, as a folder or as 'shards/{000..012}.tar' in "
            "quotes.",
            metavar="DIR",
        ),
    ],
    size: Annotated[
        int, typer.Option(help="Pixels a side to train at [data.size].", min=8, max=16384)
    ] = 512,
    bucket_step: Annotated[
        int,
        typer.Option(help="The buckets' sides are multiples of it; 0: 64, less below 512.", min=0),
    ] = 0,
    max_pixels: Annotated[
        int | None, typer.Option(help="Larger pictures are dropped [data.max_pixels].")
    ] = None,
    alpha_is_mask: Annotated[
        bool, typer.Option(help="Take alpha for a mask [data.alpha_is_mask].")
    ] = False,
    labels: Annotated[
        str,
        typer.Option(
            help="Count pictures by class: of the 'folders' they lie in, one a class, or of the "
            "'data', which is label in metadata.jsonl and .cls in shards [data.labels]."
        ),
    ] = "",
    classes: Annotated[
        str | None,
        typer.Option(help="The classes that may be, with commas between [data.classes]."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Name every file as used, with what is odd about it, or dropped, and why; and sum up.

    Training prints the same summary before it starts. Captions longer than CLIP's 77 tokens are
    counted. Nothing is written.
    """
    from sd_train import DataConfig
    from sd_train.data_summary import document, file_lines, summarise, summary_lines
    from sd_train.settings import parse_config

    settings = {
        "folder": str(folder),
        "size": size,
        "bucket_step": bucket_step,
        "max_pixels": max_pixels,
        "alpha_is_mask": alpha_is_mask,
        "labels": labels,
        "classes": None if classes is None else [name.strip() for name in classes.split(",")],
    }
    given = {name: value for name, value in settings.items() if value is not None}
    report = _checked(parse_config(DataConfig, given, origin="data check"))
    summary = summarise(report, _tokenizer())
    # A large folder has many lines: they are put together only where they are shown.
    lines = [] if json else [*file_lines(report), "", *summary_lines(summary, report)]
    show("\n".join(lines), document(report, summary) if json else {}, as_json=json)
    if not report.used:
        raise CommandError(f"{folder} has no picture that can be used; add some")


def _checked(config: "DataConfig") -> "DataReport":
    from sd_train.data_check import check_pictures
    from sd_train.labels import find_labelled

    found = find_labelled(config)
    with progress() as bars:
        bar = bars.add_task("opening", total=len(found.entries), note="")
        return check_pictures(found, config, on_item=lambda done: bars.update(bar, completed=done))


def _tokenizer() -> "Tokenizer | None":
    from sd_textenc import TextEncoderError, clip_tokenizer

    try:
        return clip_tokenizer()
    except TextEncoderError as error:
        note(f"the captions' tokens are not counted: {error}")
        return None
