"""`sdcli inspect` and `sdcli replay`: what a picture's file says, and the picture made again."""

import json
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdcli.adapters import found_again
from sdcli.drawing import open_pipeline
from sdcli.errors import CommandError
from sdcli.models import locate_model
from sdcli.option_groups import Chosen
from sdcli.options import AdapterFolder, AsJson, Offload
from sdcli.progress import note, progress

if TYPE_CHECKING:
    from PIL import Image

    from sd_pipeline import Metadata, Picture, Record, Txt2Img

File = Annotated[Path, typer.Argument(help="A picture.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Hold how a picture that was made again compares with its file.

    `identical` is what was drawn then and now. `different_pixels` are those of the file and of the
    new picture in the same format, None for another size. `changed`: the file's pixels are not
    those that were written, None where that cannot be known. `differences` are settings and
    versions.
    """

    identical: bool
    different_pixels: int | None
    num_pixels: int
    changed: bool | None
    differences: Mapping[str, Mapping[str, Any]]


def inspect(file: File, as_json: AsJson = False) -> None:
    """Print what a picture's file says of how it was made, by this or another program."""
    from sd_pipeline import read_metadata

    metadata = read_metadata(file)
    if as_json:
        told = {
            "pixels": metadata.pixels,
            "encoding": metadata.encoding and asdict(metadata.encoding),
        }
        written = {name: value for name, value in told.items() if value is not None}
        print(json.dumps({"program": metadata.program, **metadata.settings, **written}))
        return
    print(f"{file}: made by {metadata.program}")
    for name, value in metadata.settings.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        print(f"{_shown(name)}: {_shown(text)}")
    if metadata.pixels is not None:
        lossy = metadata.encoding is not None and not metadata.encoding.lossless
        print(f"pixels: {_shown(metadata.pixels)}", end="")
        print(f", as drawn; {metadata.encoding} has changed them" if lossy else "")


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
    depth: Annotated[
        Path | None, typer.Option(help="The depth map that it was drawn with.")
    ] = None,
    adapters: AdapterFolder = Path("adapters"),
    tiny_vae: Annotated[
        Path | None,
        typer.Option(help="Another place of the tiny autoencoder that it was drawn through."),
    ] = None,
    offload: Offload = False,
    engine: Annotated[
        str | None,
        typer.Option(help="torch or openvino. [default: the one that computed the UNet]"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Another device. [default: the one it was drawn on]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A .png, .jpg, .jpeg or .webp file for the new picture."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a picture again from its own record, and say whether it is the same."""
    from sd_pipeline import check_out, read_metadata, save_picture

    metadata = read_metadata(file)
    record = metadata.record
    if record is None and metadata.program == "sdcli grid":
        raise CommandError(
            f"{file} is a sheet of many pictures; replay one of them by its own file"
        )
    if record is None:
        raise CommandError(f"{file} was made by {metadata.program}; only our own can be replayed")
    if not 0 <= record.seed - record.batch_seed < record.batch_size:
        raise CommandError(f"{file}'s record has a seed that is not of its batch: it is spoilt")
    if out is not None:
        check_out(out, 1)
    record = replace(record, adapters=found_again(record.adapters, adapters))
    request = request_of(record, image, mask, depth)
    chosen = Chosen(
        model=_model_of(record, model),
        variant=record.variant,
        use_ema=record.use_ema,
        device=device or record.device,
        dtype=_dtype_of(record),
        # Where our kernels are not to be had, the picture is the same but for rounding.
        attention="auto" if record.attention == "native" else record.attention,
        changes=asdict(record.process),
        batch_invariant=record.batch_invariant,
        tiling=record.tiling,
        int8=record.int8,
        engine=engine or record.engine,
        # LoRAs ride on top of torch's alone; in the weights they are the same but for rounding.
        fuse="openvino" in (engine, record.engine),
        offload=offload,
        tiny_vae=None if record.tiny_vae is None else tiny_vae or Path(record.tiny_vae),
    )
    pipeline = open_pipeline(chosen)
    with progress() as bars:
        bar = bars.add_task("denoising", total=None, note="")
        drawn = pipeline.draw(
            request, lambda step: bars.update(bar, total=step.num_steps, advance=1)
        )
        again = next(picture for picture in drawn if picture.record.seed == record.seed)
    if out is not None:
        save_picture(again, out)
    comparison = _compare(file, metadata, again)
    if as_json:
        print(json.dumps({"file": str(file), **asdict(comparison)}))
    else:
        _tell(file, metadata, comparison)


def request_of(
    record: "Record", image: Path | None, mask: Path | None, depth: Path | None = None
) -> "Txt2Img":
    """Return what was asked for, from a record and what it names by hash alone.

    Raises `CommandError` where that is not given, or the record is not of what this version draws.
    """
    try:
        return _request(record, image, mask, depth)
    except (KeyError, TypeError) as error:
        raise CommandError(
            f"the record is of an edit that this version does not know ({error!r:.80})"
        ) from error


def _request(
    record: "Record", image: Path | None, mask: Path | None, depth: Path | None
) -> "Txt2Img":
    from sd_pipeline import Img2Img, Inpaint, Outpaint, Txt2Img, read_depth, read_image

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
        "blend": record.with_seed(record.batch_seed).blend,
        "seamless": record.seamless,
        "clip_skip": record.clip_skip,
        "class_name": record.class_name,
        "reuse_features": record.reuse_features,
        "merge_tokens": record.merge_tokens,
        "adapters": record.adapters,
    }
    if not record.edit:
        return Txt2Img(width=record.width, height=record.height, **common)
    edit = dict(record.edit)
    source = edit.pop("source")
    common["image"] = _same(image, source, "the picture it was begun with", "--image", read_image)
    if "depth" in edit:
        wanted = edit.pop("depth")
        common["depth"] = _same(depth, wanted, "the depth map", "--depth", read_depth)
    if "left" in edit:
        return Outpaint(**common, **edit)
    if "mask" not in edit:
        return Img2Img(**common, **edit)
    wanted = edit.pop("mask")
    if wanted is not None:
        common["mask"] = _same(mask, wanted, "the mask it was drawn with", "--mask", read_image)
    return Inpaint(**common, **edit)


def _same(
    path: Path | None, wanted: str, what: str, option: str, read: "Callable[[Path], Image.Image]"
) -> "Image.Image":
    """Read what a picture was made from, and say where it is not the same."""
    from sd_pipeline.images import pixel_hash

    if path is None:
        raise CommandError(f"the record names {what} by its hash alone; give it as {option}")
    image = read(path)
    if pixel_hash(image) != wanted:
        note(f"{path} has other pixels than {what}")
    return image


def _dtype_of(record: "Record") -> str:
    from sd_pipeline import DTYPES

    names = {str(dtype).removeprefix("torch."): name for name, dtype in DTYPES.items()}
    if record.dtype not in names:
        raise CommandError(f"the record's dtype is {record.dtype!r}; it must be {', '.join(names)}")
    return names[record.dtype]


def _model_of(record: "Record", model: str | None) -> str:
    name = model or record.model
    locate_model(name, variant=record.variant)  # raises, with the mend, where it is not there
    return name


def _compare(file: Path, metadata: "Metadata", again: "Picture") -> Comparison:
    import numpy as np

    from sd_pipeline import read_image
    from sd_pipeline.images import flatten, pixel_hash
    from sd_pipeline.picture_format import PictureFormat

    assert metadata.record is not None
    encoding = metadata.encoding or PictureFormat()
    image = flatten(read_image(file))
    old = np.asarray(image)
    # What a format with loss makes of a picture is compared with what it makes of the other.
    new = np.asarray(again.image if encoding.lossless else encoding.through(again.image))
    number = int((old != new).any(axis=-1).sum()) if old.shape == new.shape else None
    if metadata.pixels is None:
        identical, changed = number == 0, None
    else:
        identical = pixel_hash(again.image) == metadata.pixels
        changed = number != 0 if identical else None
        if encoding.lossless:
            changed = pixel_hash(image) != metadata.pixels
    return Comparison(
        identical=identical,
        different_pixels=0 if identical else number,
        num_pixels=new.shape[0] * new.shape[1],
        changed=changed,
        differences=_differences(metadata.record, again.record),
    )


def _differences(before: "Record", again: "Record") -> dict[str, dict[str, Any]]:
    then, now = (json.loads(record.json()) for record in (before, again))
    then, now = (values.pop("versions") | values for values in (then, now))
    return {
        name: {"then": then.get(name), "now": now.get(name)}
        for name in {**now, **then}
        if then.get(name) != now.get(name)
    }


def _tell(file: Path, metadata: "Metadata", comparison: Comparison) -> None:
    """Say that the picture is the same, or what differs and by how many pixels."""
    lossy = metadata.encoding is not None and not metadata.encoding.lossless
    number, all_pixels = comparison.different_pixels, comparison.num_pixels
    if comparison.identical:
        print(f"{file}: identical" + (f" as drawn, before {metadata.encoding}" if lossy else ""))
    elif number is None:
        print(f"{file}: the sizes differ")
    else:
        where = f" once both are {metadata.encoding}" if lossy else ""
        print(f"{file}: {number} of {all_pixels} pixels differ{where}")
    if comparison.changed:
        other = ", or another version of the codec wrote it" if lossy else ""
        print(f"the file's pixels are not those that were written: it has been changed{other}")
    if not comparison.identical:
        for name, values in comparison.differences.items():
            print(_shown(f"{name.replace('_', ' ')}: {values['then']} then, {values['now']} now"))


def _shown(text: str) -> str:
    """Return a text without what steers a terminal, or cannot be printed: files are anybody's."""
    return "".join(
        ascii(c)[1:-1] if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c
        for c in text
    )
