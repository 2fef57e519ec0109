"""What every command that draws does: expand, open, report, draw, save."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdcli.adapters import NamedAdapters
from sdcli.errors import CommandError
from sdcli.hashes import known_hash
from sdcli.interrupts import after_step
from sdcli.models import open_named
from sdcli.option_groups import Chosen, OutputOptions, PromptOptions
from sdcli.progress import note, progress

if TYPE_CHECKING:
    from sd_pipeline import AdapterUse, Picture, PictureFormat, Pipeline, Step, Txt2Img

_NO_PROMPT_OPTIONS = PromptOptions()
_PREPARES = {
    "compiled": "compiled, which takes a minute or two,",
    "graphs": "recorded",
    "openvino": "converted, which takes a while and a second copy of its weights,",
}


@dataclass(slots=True)
class Drawn:
    """Hold the pictures of a command and their files, as far as it came."""

    pictures: "list[Picture]" = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)


def draw(
    requests: "Sequence[Txt2Img]",
    chosen: Chosen,
    output: OutputOptions,
    prompts: PromptOptions = _NO_PROMPT_OPTIONS,
    *,
    finish: Callable[[Drawn], None] | None = None,
) -> None:
    """Draw what requests of any kind ask for, and print each picture's path, seed and time.

    `finish` is what is to be done with all of them before the JSON document, if one is asked for,
    is printed; what it puts into `more` is told, too.
    """
    started = time.perf_counter()
    from sd_pipeline import PictureFormat, check_fits, check_out, name_of

    if output.preview < 0:
        raise CommandError(f"--preview is {output.preview}; it must be 0 (never) or more")
    requests = expanded(requests, prompts)
    file_format = PictureFormat.of(output.out, output.file_format, output.quality)  # type: ignore[arg-type]
    check_out(output.out, sum(request.count for request in requests))
    pipeline = open_pipeline(chosen)
    for request in requests:
        check_fits(pipeline.resolve(request), file_format)
    if any(request.negative_prompt for request in requests):
        _report_unheeded(pipeline, requests)
    told = {(text, repr(one.adapters)): (text, one) for one in requests for text in _texts(one)}
    for text, request in told.values():
        _report_losses(pipeline, text, request.adapters)
    dtype = name_of(pipeline.dtype)
    note(
        f"{chosen.model} loaded in {time.perf_counter() - started:.1f} s on {pipeline.device}, "
        f"dtype {dtype}{' (auto)' * (chosen.dtype == 'auto')}"
    )
    if chosen.offload and not pipeline.offload:
        note(
            f"--offload does nothing on the {pipeline.device}: the weights are in its memory anyway"
        )
    _report_trades(requests, chosen)
    drawn = Drawn(more={"model": chosen.model, "device": str(pipeline.device), "dtype": dtype})
    try:
        _draw(pipeline, requests, output, file_format, drawn)
        _report_preparations(pipeline)
        if finish is not None:
            finish(drawn)
    except KeyboardInterrupt:  # what is finished is told
        drawn.more["interrupted"] = True
        _print_document(drawn, output, started)
        raise
    _print_document(drawn, output, started)


def check_place(path: Path, option: str) -> None:
    """Find out before the work whether a file can be written, whose folder is made if need be.

    Raises `CommandError` where it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        reason = "permission denied" if not os.access(path.parent, os.W_OK | os.X_OK) else ""
    except OSError as error:
        reason = error.strerror or str(error)
    if path.is_dir():
        reason = "it is a folder"
    if reason:
        raise CommandError(f"cannot write {option} {path}: {reason}; choose another place")


def open_pipeline(chosen: Chosen) -> "Pipeline":
    """Open the model to draw with; its records tell which it was."""
    from sd_pipeline import check_tiling, load_pipeline, read_defaults

    tiling = check_tiling(chosen.tiling)
    opened, path = open_named(chosen.model, variant=chosen.variant, use_ema=chosen.use_ema)
    pipeline = load_pipeline(
        opened.with_process(chosen.changes),
        name=chosen.model,
        device=chosen.device,
        dtype=chosen.dtype,
        attention=chosen.attention,
        batch_invariant=chosen.batch_invariant,
        defaults=read_defaults(path),
        int8=chosen.int8,
        offload=chosen.offload,
        engine=chosen.engine,
    )
    origin = {
        "model_hash": known_hash(path, chosen.variant),
        "variant": chosen.variant,
        "use_ema": chosen.use_ema,
    }
    pipeline = replace(pipeline, origin=origin, tiling=tiling, fuse=chosen.fuse)
    return pipeline if chosen.tiny_vae is None else pipeline.with_tiny_vae(chosen.tiny_vae)


def expanded(requests: "Sequence[Txt2Img]", prompts: PromptOptions) -> "list[Txt2Img]":
    """Put styles on, choose each picture's words by its seed, and take the adapters out of them.

    Neighbours of the same words stay one request.
    """
    from sd_textenc.prompts import Styles, Wildcards, expand

    wildcards = None if prompts.wildcards is None else Wildcards.from_folder(prompts.wildcards)
    styles = Styles.from_file(prompts.styles) if prompts.style else Styles()
    named = NamedAdapters.of(prompts)
    result: list[Txt2Img] = []
    for request in requests:
        texts = styles.apply(prompts.style or (), request.prompt, request.negative_prompt)
        words: tuple[str, ...] = ()
        for index in range(request.count):
            seed = request.seed + index
            before, words = words, tuple(expand(text, seed, wildcards) for text in texts)
            if words == before:
                result[-1] = replace(result[-1], count=result[-1].count + 1)
                continue
            blend = request.blend
            if blend is not None:
                blend = replace(
                    blend,
                    prompt=None if blend.prompt is None else expand(blend.prompt, seed, wildcards),
                    seed=None if blend.seed is None else blend.seed + index,
                )
            adapted = named.applied(request.adapters, *words)
            result.append(replace(request, **adapted, seed=seed, count=1, blend=blend))
    return result


def _draw(
    pipeline: "Pipeline",
    requests: "Sequence[Txt2Img]",
    output: OutputOptions,
    file_format: "PictureFormat",
    drawn: Drawn,
) -> None:
    from sd_pipeline import save_picture

    count = sum(request.count for request in requests)
    num_batches = sum(-(-request.count // request.batch_size) for request in requests)
    with _showing(pipeline, num_batches, output) as (tell, say, check):
        for picture in chain.from_iterable(pipeline.draw(each, tell) for each in requests):
            path = save_picture(picture, output.out, file_format)
            drawn.pictures.append(picture)
            drawn.paths.append(path)
            say(f"{len(drawn.paths)}/{count} pictures")
            if not output.json:
                print(f"{path}  seed {picture.record.seed}  {picture.seconds:.1f} s", flush=True)
        check()


@contextmanager
def _showing(
    pipeline: "Pipeline", num_batches: int, output: OutputOptions
) -> "Iterator[tuple[Callable[[Step], None], Callable[[str], None], Callable[[], None]]]":
    """Show a bar; yield what moves it, what writes behind it, and what raises after a Ctrl-C."""
    show = _previewer(pipeline, output)
    with progress() as bars, after_step() as check:
        bar = bars.add_task("denoising", total=None, note="")

        def tell(step: "Step") -> None:
            bars.update(bar, total=num_batches * step.num_steps, advance=1)
            if show is not None and step.number % output.preview == 0:
                show(step)
            check()

        yield tell, lambda text: bars.update(bar, note=text), check


def _previewer(pipeline: "Pipeline", output: OutputOptions) -> "Callable[[Step], None] | None":
    if not output.preview:
        return None
    from PIL import Image

    from sd_checkpoint import atomic_path

    to_pictures = pipeline.previewer()
    out = output.out
    path = out / "preview.png" if out.is_dir() else out.with_name(f"{out.stem}.preview.png")

    def show(step: "Step") -> None:
        small = to_pictures(step.x0)
        row = Image.new("RGB", (sum(one.width for one in small), small[0].height))
        for index, one in enumerate(small):
            row.paste(one, (index * one.width, 0))
        height, width = (side * pipeline.factor for side in step.x0.shape[-2:])
        size = (width * len(small), height)
        with atomic_path(path) as temporary:
            row.resize(size, Image.Resampling.BICUBIC).save(temporary, format="PNG")

    return show


def _print_document(drawn: Drawn, output: OutputOptions, started: float) -> None:
    if not output.json:
        return
    pictures = [
        {"path": str(path), "seed": picture.record.seed, "seconds": picture.seconds}
        for path, picture in zip(drawn.paths, drawn.pictures, strict=True)
    ]
    seconds = time.perf_counter() - started
    document = {**drawn.more, "seconds": seconds, "pictures": pictures}
    print(json.dumps(document, ensure_ascii=False))


def _texts(request: "Txt2Img") -> Iterable[str]:
    yield request.prompt
    yield request.negative_prompt
    if request.blend is not None and request.blend.prompt is not None:
        yield request.blend.prompt


def _report_unheeded(pipeline: "Pipeline", requests: "Sequence[Txt2Img]") -> None:
    from sd_textenc.prompts import parse_composition

    for request in requests:
        alone = len(parse_composition(request.prompt)) == 1
        if request.negative_prompt and alone and pipeline.resolve(request).guidance_scale == 1:
            note("the negative prompt is not heeded: --guidance is 1, which is none")
            return


def _report_trades(requests: "Sequence[Txt2Img]", chosen: Chosen) -> None:
    if chosen.engine in _PREPARES:
        note(
            f"--engine {chosen.engine}: the UNet is {_PREPARES[chosen.engine]} at the first step "
            "of each size; pictures are the same but for rounding"
        )
    if chosen.int8:
        note(
            "--int8: the UNet's weights are rounded to eight bits a value and made whole at every "
            "use: less memory, slower, and pictures differ from exact ones"
        )
    if chosen.tiny_vae is not None:
        note(
            f"--tiny-vae: {chosen.tiny_vae} draws in place of the model's decoder: faster, with "
            "less memory, and fine detail differs from exact pictures"
        )
    for number in sorted({request.reuse_features for request in requests} - {1}):
        note(
            f"--reuse-features {number}: the UNet's depth is computed at one step of {number}, and "
            "used again at the others: faster, and pictures differ from exact ones"
        )
    for share in sorted({request.merge_tokens for request in requests} - {0.0}):
        note(
            f"--merge-tokens {share:g}: so many of the finest level's tokens share one "
            "self-attention: faster, and pictures differ from exact ones"
        )


def _report_preparations(pipeline: "Pipeline") -> None:
    engine = pipeline.unet_engine
    if engine is not None and engine.preparations:
        seconds = [one.seconds for one in engine.preparations]
        sizes = f"{len(seconds)} size{'s' * (len(seconds) != 1)}"
        note(f"--engine {engine.name}: making {sizes} ready took {sum(seconds):.1f} s of these")


def _report_losses(pipeline: "Pipeline", text: str, adapters: "Sequence[AdapterUse]") -> None:
    report = pipeline.check_prompt(text, adapters)
    if report.unknown:
        words = ", ".join(repr(word) for word in report.unknown)
        note(f"the model {pipeline.name} does not know {words}: nothing is drawn for it")
    for line in report.notes:
        note(f"in the prompt {text!r}, {line}")
    if not pipeline.parts.towers:  # it is told classes, and which these are has been checked
        return
    room = pipeline.parts.towers[0].tokenizer.context_length - 2
    if report.num_tokens > room:
        note(
            f"the prompt has {report.num_tokens} tokens, more than the model's context: it is read "
            f"in pieces of {room}"
        )
