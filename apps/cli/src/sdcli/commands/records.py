"""`sdcli inspect` and `sdcli replay`: what a picture's file says, and the picture made again."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdcli.drawing import Chosen, open_pipeline, pictures
from sdcli.errors import CommandError
from sdcli.models import locate_model
from sdcli.progress import note, progress

if TYPE_CHECKING:
    from PIL import Image

    from sd_pipeline import Metadata, Record, Txt2Img

File = Annotated[Path, typer.Argument(help="A picture.")]


def inspect(
    file: File,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Print what a picture's file says of how it was made, by this or another program."""
    from sd_pipeline import read_metadata

    metadata = read_metadata(file)
    if as_json:
        print(json.dumps({"program": metadata.program, **metadata.settings}, ensure_ascii=False))
        return
    print(f"{file}: made by {metadata.program}")
    for name, value in metadata.settings.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        print(f"{name}: {text}")


def replay(
    file: File,
    model: Annotated[
        str | None,
        typer.Option(help="Another place of the model. [default: the one that the file names]"),
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="The picture that it was begun with, if it was.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="The mask that it was drawn with.")] = None,
    device: Annotated[
        str | None, typer.Option(help="Another device. [default: the one it was drawn on]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A .png file for the new picture.")] = None,
) -> None:
    """Make a picture again from its own record, and say whether it is the same."""
    from sd_pipeline import check_out, read_metadata, save_picture

    metadata = read_metadata(file)
    record = metadata.record
    if record is None:
        raise CommandError(f"{file} was made by {metadata.program}; only our own can be replayed")
    if out is not None:
        check_out(out, 1)
    request = _request(record, image, mask)
    chosen = Chosen(
        model=_model_of(record, model),
        variant=record.variant,
        use_ema=record.use_ema,
        device=device or record.device,
        dtype={"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}[record.dtype],
        attention=record.attention,
        changes=asdict(record.process),
    )
    pipeline = open_pipeline(chosen)
    with progress() as bars:
        bar = bars.add_task("denoising", total=None, note="")
        drawn = pictures(
            pipeline, request, lambda _, number: bars.update(bar, total=number, advance=1)
        )
        again = next(picture for picture in drawn if picture.record.seed == record.seed)
    if out is not None:
        save_picture(again, out)
    _compare(file, metadata, again.record, again.image)


def _request(record: "Record", image: Path | None, mask: Path | None) -> "Txt2Img":
    from sd_pipeline import Img2Img, Inpaint, Txt2Img

    common: dict[str, Any] = {
        "prompt": record.prompt,
        "negative_prompt": record.negative_prompt,
        "num_steps": record.num_steps,
        "sampler": record.sampler,
        "schedule": record.schedule,
        "guidance_scale": record.guidance_scale,
        "guidance": record.guidance,
        "seed": record.batch_seed,
        "count": record.batch_size,
        "batch_size": record.batch_size,
    }
    if not record.edit:
        return Txt2Img(width=record.width, height=record.height, **common)
    edit = dict(record.edit)
    common["image"] = _same(image, edit.pop("source"), "the picture it was begun with", "--image")
    if "mask" not in edit:
        return Img2Img(**common, **edit)
    wanted = edit.pop("mask")
    if wanted is not None:
        common["mask"] = _same(mask, wanted, "the mask it was drawn with", "--mask")
    return Inpaint(**common, **edit)


def _same(path: Path | None, wanted: str, what: str, option: str) -> "Image.Image":
    """Read what a picture was made from, and say where it is not the same."""
    from sd_pipeline import read_image
    from sd_pipeline.images import pixel_hash

    if path is None:
        raise CommandError(f"the record names {what} by its hash alone; give it as {option}")
    image = read_image(path)
    if pixel_hash(image) != wanted:
        note(f"{path} has other pixels than {what}")
    return image


def _model_of(record: "Record", model: str | None) -> str:
    name = model or record.model
    locate_model(name, variant=record.variant)  # raises, with the mend, where it is not there
    return name


def _compare(file: Path, metadata: "Metadata", again: "Record", image: "Image.Image") -> None:
    """Say that the picture is the same, or what differs and by how many pixels."""
    import numpy as np
    from PIL import Image

    from sd_pipeline.images import pixel_hash

    before = metadata.record
    assert before is not None
    if pixel_hash(image) == metadata.pixels:
        print(f"{file}: identical")
        return
    with Image.open(file) as opened:
        old, new = np.asarray(opened.convert("RGB")), np.asarray(image)
    if old.shape == new.shape:
        number = int((old != new).any(axis=-1).sum())
        print(f"{file}: {number} of {new.shape[0] * new.shape[1]} pixels differ")
    else:
        print(f"{file}: the sizes differ, {old.shape[1::-1]} and {new.shape[1::-1]}")
    if pixel_hash(Image.fromarray(old)) != metadata.pixels:
        print("the file's pixels are not those that were written: it has been changed")
    differences = {
        "model hash": (before.model_hash, again.model_hash),
        "device": (before.device, again.device),
        **{
            name: (before.versions.get(name), again.versions.get(name))
            for name in {**before.versions, **again.versions}
        },
    }
    for name, (old_value, new_value) in differences.items():
        if old_value != new_value:
            print(f"{name}: {old_value} then, {new_value} now")
