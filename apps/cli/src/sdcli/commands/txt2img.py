"""`sdcli txt2img`: a prompt becomes pictures."""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdcli.models import open_named
from sdcli.options import (
    Attention,
    Betas,
    Device,
    Dtype,
    FinalAlpha,
    Model,
    Prediction,
    StepsOffset,
    UseEma,
    Variant,
    ZeroSnr,
    process_changes,
)
from sdcli.progress import note, progress
from sdcli.seeds import choose_seed

if TYPE_CHECKING:
    from sd_pipeline import Pipeline, Txt2Img


def txt2img(
    prompt: Annotated[
        str,
        typer.Argument(
            help="What to draw. (word:1.2), (word) and [word] weigh words, [a:b:0.5] and [a|b] "
            "change them by step, AND joins prompts, BREAK begins a new piece, {a|b} and __name__ "
            "choose one by the seed; a backslash before a bracket takes it as it is."
        ),
    ],
    negative: Annotated[
        str, typer.Option("--negative", help="What to keep away from; needs --guidance above 1.")
    ] = "",
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="A .png file for one picture (replaced if it exists), or a folder, in which "
            "every picture gets a new name.",
        ),
    ] = Path("outputs"),
    width: Annotated[
        int | None, typer.Option(help="Pixels, a multiple of 8. [default: the model's]")
    ] = None,
    height: Annotated[
        int | None, typer.Option(help="Pixels, a multiple of 8. [default: the model's]")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps, 1 or more. [default: the model's]")
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="ddim, ddpm, ddpm_large, euler, euler_a, heun, dpm2, dpm2_a, lms, plms, dpmpp_2m, "
            "dpmpp_2s_a, dpmpp_sde, dpmpp_2m_sde, dpmpp_3m_sde, unipc, deis, lcm or tcd; or as the "
            "web UI spells it, such as 'DPM++ 2M Karras'. [default: the model's]"
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Noise levels to stop at: karras, exponential, polyexponential, kl_optimal, "
            "uniform, sgm_uniform, simple, ddim_uniform, beta, align_your_steps, "
            "align_your_steps_xl, lcm, leading, trailing or linspace. [default: the sampler's]"
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="Classifier-free guidance scale, from 1 (off) to 100. [default: the model's]"
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of the first picture; picture i has seed + i. [default: random]"),
    ] = None,
    count: Annotated[int, typer.Option(help="Pictures in all.")] = 1,
    batch: Annotated[
        int, typer.Option(help="Pictures at a time; more is faster and takes more memory.")
    ] = 1,
    wildcards: Annotated[
        Path | None,
        typer.Option(
            help="Folder of .txt files, a choice a line: animals/pets.txt is __animals/pets__."
        ),
    ] = None,
    model: Model = "scenes",
    variant: Variant = None,
    ema: UseEma = False,
    prediction: Prediction = None,
    betas: Betas = None,
    zero_snr: ZeroSnr = None,
    steps_offset: StepsOffset = None,
    final_alpha: FinalAlpha = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    attention: Attention = "auto",
) -> None:
    """Draw pictures from a prompt and print each one's path, seed and time."""
    started = time.perf_counter()
    from sd_pipeline import Txt2Img, check_out, load_pipeline, read_defaults

    request = Txt2Img(
        prompt=prompt,
        negative_prompt=negative,
        width=width,
        height=height,
        num_steps=steps,
        sampler=sampler,
        schedule=schedule,
        guidance_scale=guidance,
        seed=choose_seed(seed, count),
        count=count,
        batch_size=batch,
    )
    changes = process_changes(
        prediction=prediction,
        zero_snr=zero_snr,
        betas=betas,
        steps_offset=steps_offset,
        final_alpha=final_alpha,
    )
    requests = _expanded(request, wildcards)
    check_out(out, count)
    opened, path = open_named(model, variant=variant, use_ema=ema)
    pipeline = load_pipeline(
        opened.with_process(changes),
        name=model,
        device=device,
        dtype=dtype,
        attention=attention,
        defaults=read_defaults(path),
    )
    num_steps = pipeline.resolve(request).num_steps
    for text in dict.fromkeys(t for r in requests for t in (r.prompt, r.negative_prompt)):
        _report_losses(pipeline, text)
    note(f"{model} loaded in {time.perf_counter() - started:.1f} s on {pipeline.device}")
    _draw(pipeline, requests, num_steps, out)


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


def _draw(pipeline: "Pipeline", requests: Sequence["Txt2Img"], num_steps: int, out: Path) -> None:
    from sd_pipeline import save_picture

    count = sum(request.count for request in requests)
    num_batches = sum(-(-request.count // request.batch_size) for request in requests)
    with progress() as bars:
        bar = bars.add_task("denoising", total=num_batches * num_steps, note="")
        pictures = chain.from_iterable(
            pipeline.txt2img(request, on_step=lambda *_: bars.advance(bar)) for request in requests
        )
        for done, picture in enumerate(pictures, start=1):
            path = save_picture(picture, out)
            bars.update(bar, note=f"{done}/{count} pictures")
            print(f"{path}  seed {picture.record.seed}  {picture.seconds:.1f} s", flush=True)


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
