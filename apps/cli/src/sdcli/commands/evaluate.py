"""`sdcli eval`: how good a model, a run of training or a folder of drawn pictures is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdcli.errors import CommandError
from sdcli.eval_options import EvalOptions
from sdcli.grouping import grouped
from sdcli.models import open_named
from sdcli.progress import note, progress
from sdcli.results import show

if TYPE_CHECKING:
    from rich.progress import TaskID

    from sd_train import SampleSettings
    from sd_train.eval_subjects import Subject

_EMBEDDED = "scenes"


@grouped
def evaluate(
    options: EvalOptions,
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model, as txt2img takes it; or the folder of a run, for its averaged weights. "
            "[default: scenes]"
        ),
    ] = None,
) -> None:
    """Measure held-out losses, and how drawn pictures compare with real ones: FID, KID, CLIP score.

    Captions of held-out pictures are drawn, shuffled by the seed. FID and KID are told with the
    features they were measured in: figures of others are not to be compared. FID needs more
    pictures of each kind than there are features, KID two. A run that trains something other than a
    denoiser tells what its validation measures.
    """
    from sd_train import LineReporter
    from sd_train.evaluation import EvalConfig
    from sd_train.evaluation import evaluate as measure
    from sd_train.judges import open_judges

    config = EvalConfig(
        measures=options.chosen(),
        num_drawn=options.count,
        num_bands=options.bands,
        num_examples=options.loss_pictures,
        batch_size=options.batch,
        seed=options.seed,
        out=options.out,
    )
    with _opened(model, options) as subject:
        config = replace(config, samples=_samples(subject, options))
        judges = open_judges(options.features, options.clip, subject.device)
        with _told() as tell:
            found = measure(subject, config, judges, LineReporter(note), tell)
    show("\n".join(found.lines()), found.document(), as_json=options.json)


@contextmanager
def _opened(model: str | None, options: EvalOptions) -> "Iterator[Subject]":
    """Open what is evaluated."""
    if options.pictures is not None and model is not None:
        raise CommandError("give a model, or --pictures that one has drawn, not both")
    run = Path(model or "")
    if model is not None and (run / "config.toml").is_file():
        from sd_train import LineReporter
        from sd_train.eval_subjects import run_subject

        device = None if options.device == "auto" else options.device
        told = LineReporter(note)
        with run_subject(run, told, data=options.data, device=device, best=options.best) as subject:
            yield subject
        return
    if options.best:
        raise CommandError(f"--best is of a run, and {model or _EMBEDDED} is none; leave it out")
    if options.data is None:
        raise CommandError("no real pictures given: name a folder of captioned ones with --data")
    if options.pictures is not None:
        yield _drawn(options.pictures, options.data, options)
    else:
        yield _model(model or _EMBEDDED, options.data, options)


def _drawn(pictures: str, data: str, options: EvalOptions) -> "Subject":
    from sd_pipeline import resolve_device
    from sd_train.eval_subjects import Subject, open_all

    real = open_all(data, options.size)
    return Subject(
        name=pictures,
        device=resolve_device(options.device),
        real=real,
        places=range(len(real)),
        drawn=open_all(pictures, options.size),
    )


def _model(name: str, data: str, options: EvalOptions) -> "Subject":
    from sd_pipeline import build, read_defaults, resolve_device, resolve_dtype
    from sd_train.eval_subjects import model_subject

    device = resolve_device(options.device)
    opened, path = open_named(name, variant=options.variant, use_ema=False)
    parts = build(opened)
    for module in parts.networks:
        if module is not parts.vae:
            module.to(device, resolve_dtype(options.dtype, device))
    parts.vae.to(device)  # in fp32: SDXL's overflows in fp16
    defaults = read_defaults(path)
    scale = parts.family.guidance_scale if defaults is None else defaults.guidance_scale
    return model_subject(parts, name, data, device=device, guidance_scale=scale)


def _samples(subject: "Subject", options: EvalOptions) -> "SampleSettings":
    """Return how the subject draws, as far as the options do not say it."""
    from sd_sampler import parse_sampler
    from sd_train import SampleSettings
    from sd_train.settings import parse_config

    given: dict[str, object] = {}
    if options.steps is not None:
        given["steps"] = options.steps
    if options.guidance is not None:
        given["guidance_scale"] = options.guidance
    if options.sampler is not None:
        given["sampler"], schedule = parse_sampler(options.sampler)
        given["sigmas"] = schedule or ""
    values = {**subject.samples.model_dump(), **given}
    return parse_config(SampleSettings, values, origin="eval")


@contextmanager
def _told() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each stage."""
    with progress() as bars:
        shown: dict[str, TaskID] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in shown:
                shown[stage] = bars.add_task(stage, total=total, note="")
            bars.update(shown[stage], completed=done)

        yield tell
