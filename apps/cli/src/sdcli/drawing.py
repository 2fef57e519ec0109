"""What every command that draws does: expand, open, report, draw, save."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdcli.hashes import known_hash
from sdcli.models import open_named
from sdcli.progress import note, progress

if TYPE_CHECKING:
    from sd_pipeline import Picture, Pipeline, Txt2Img
    from sd_pipeline.pipeline import OnStep


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """Hold which model to draw with, and how; `changes` are to its diffusion process."""

    model: str
    variant: str | None
    use_ema: bool
    device: str
    dtype: str
    attention: str
    changes: Mapping[str, Any]


def draw(request: "Txt2Img", chosen: Chosen, out: Path, wildcards: Path | None) -> None:
    """Draw what a request of any kind asks for, and print each picture's path, seed and time."""
    started = time.perf_counter()
    from sd_pipeline import check_out

    requests = _expanded(request, wildcards)
    check_out(out, request.count)
    pipeline = open_pipeline(chosen)
    pipeline.resolve(request)
    for text in dict.fromkeys(t for r in requests for t in (r.prompt, r.negative_prompt)):
        _report_losses(pipeline, text)
    note(f"{chosen.model} loaded in {time.perf_counter() - started:.1f} s on {pipeline.device}")
    _draw(pipeline, requests, out)


def open_pipeline(chosen: Chosen) -> "Pipeline":
    """Open the model to draw with; its records tell which it was."""
    from sd_pipeline import load_pipeline, read_defaults

    opened, path = open_named(chosen.model, variant=chosen.variant, use_ema=chosen.use_ema)
    pipeline = load_pipeline(
        opened.with_process(chosen.changes),
        name=chosen.model,
        device=chosen.device,
        dtype=chosen.dtype,
        attention=chosen.attention,
        defaults=read_defaults(path),
    )
    origin = {
        "model_hash": known_hash(path, chosen.variant),
        "variant": chosen.variant,
        "use_ema": chosen.use_ema,
    }
    return replace(pipeline, origin=origin)


def _expanded(request: "Txt2Img", wildcards: Path | None) -> list["Txt2Img"]:
    """Choose each picture's words by its seed; neighbours of the same words stay one request."""
    from sd_textenc.prompts import Wildcards, expand

    known = None if wildcards is None else Wildcards.from_folder(wildcards)
    requests: list[Txt2Img] = []
    for seed in range(request.seed, request.seed + request.count):
        prompt = expand(request.prompt, seed, known)
        negative = expand(request.negative_prompt, seed, known)
        one = replace(request, prompt=prompt, negative_prompt=negative, seed=seed, count=1)
        last = requests[-1] if requests else None
        if last and (last.prompt, last.negative_prompt) == (prompt, negative):
            requests[-1] = replace(last, count=last.count + 1)
        else:
            requests.append(one)
    return requests


def _draw(pipeline: "Pipeline", requests: Sequence["Txt2Img"], out: Path) -> None:
    from sd_pipeline import save_picture

    count = sum(request.count for request in requests)
    num_batches = sum(-(-request.count // request.batch_size) for request in requests)
    with progress() as bars:
        bar = bars.add_task("denoising", total=None, note="")

        def tell(_step: int, num_steps: int) -> None:
            bars.update(bar, total=num_batches * num_steps, advance=1)

        drawn = chain.from_iterable(pictures(pipeline, request, tell) for request in requests)
        for done, picture in enumerate(drawn, start=1):
            path = save_picture(picture, out)
            bars.update(bar, note=f"{done}/{count} pictures")
            print(f"{path}  seed {picture.record.seed}  {picture.seconds:.1f} s", flush=True)


def pictures(pipeline: "Pipeline", request: "Txt2Img", on_step: "OnStep") -> Iterator["Picture"]:
    """Draw what a request of any kind asks for."""
    from sd_pipeline import Img2Img, Inpaint

    if isinstance(request, Inpaint):
        return pipeline.inpaint(request, on_step)
    if isinstance(request, Img2Img):
        return pipeline.img2img(request, on_step)
    return pipeline.txt2img(request, on_step)


def _report_losses(pipeline: "Pipeline", text: str) -> None:
    report = pipeline.check_prompt(text)
    if report.unknown:
        words = ", ".join(repr(word) for word in report.unknown)
        note(f"the model {pipeline.name} does not know {words}: nothing is drawn for it")
    for line in report.notes:
        note(f"in the prompt {text!r}, {line}")
    room = pipeline.parts.towers[0].tokenizer.context_length - 2
    if report.num_tokens > room:
        note(
            f"the prompt has {report.num_tokens} tokens, more than the model's context: it is read "
            f"in pieces of {room}"
        )
