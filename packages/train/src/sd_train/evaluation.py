"""How good a model is: its held-out losses, and how what it draws compares with real pictures."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sd_train.config import SampleSettings
from sd_train.drawn_folder import DrawnFolder
from sd_train.errors import TrainError
from sd_train.eval_subjects import Subject, held_out_examples
from sd_train.feature_distances import (
    KernelDistance,
    check_enough,
    frechet_distance,
    kernel_distance,
)
from sd_train.judges import Judges, Pictures, look
from sd_train.reporter import Reporter, format_scalars
from sd_train.seeds import generator_for
from sd_train.tasks.clip import Found
from sd_train.timestep_bands import Band, by_band

MEASURES = ("loss", "fid", "kid", "clip")
_PICTURES = ("fid", "kid", "clip")
_LOSS_CHUNK = 8

Tell = Callable[[str, int, int], None]
"""Hears of a stage, how much of it is done, and of how much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """What is measured, and on how much.

    Without `measures` it is all that can be. `num_drawn` pictures are drawn, by default as many as
    are held out, and the losses are those of up to `num_examples` of these, at `num_bands`
    timesteps each. `out` is a new folder for what is drawn.
    """

    measures: tuple[str, ...] = ()
    samples: SampleSettings = field(default_factory=SampleSettings)
    num_drawn: int | None = None
    num_bands: int = 10
    num_examples: int = 256
    batch_size: int = 8
    seed: int = 0
    out: Path | None = None

    def __post_init__(self) -> None:
        for measure in self.measures:
            if measure not in MEASURES:
                raise TrainError(f"measure {measure!r} is not known; use {', '.join(MEASURES)}")
        for name in ("num_drawn", "num_bands", "num_examples", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TrainError(f"{name} is {value}; it must be 1 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What was found; None for what was not measured.

    `weighting` is how the losses weigh timesteps, `features` in what `fid` and `kid` were measured.
    """

    subject: str
    seed: int
    num_drawn: int = 0
    num_real: int = 0
    loss: float | None = None
    bands: tuple[Band, ...] = ()
    weighting: str | None = None
    features: str | None = None
    fid: float | None = None
    kid: KernelDistance | None = None
    clip_name: str | None = None
    clip: Found | None = None
    clip_of_real: Found | None = None
    validation: dict[str, float] | None = None
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        clips = {
            name: None if found is None else found._asdict()
            for name, found in (("clip", self.clip), ("clip_of_real", self.clip_of_real))
        }
        return {**asdict(self), **clips}

    def lines(self) -> Iterator[str]:
        """Say it all, a line each, the notes last."""
        yield f"{self.subject}, seed {self.seed}"
        if self.validation is not None:
            yield format_scalars(self.validation)
        if self.loss is not None:
            yield f"loss {self.loss:.5f} ({self.weighting} weighting)"
            for band in self.bands:
                yield f"  timesteps {band.first} to {band.last}: {band.loss:.5f}"
        if self.num_drawn:
            yield f"{self.num_drawn} drawn pictures, {self.num_real} real ones"
        if self.features is not None:
            yield f"features: {self.features}"
        if self.fid is not None:
            yield f"FID {self.fid:.4f}"
        if self.kid is not None:
            yield f"KID {self.kid.mean:.6f} (standard deviation {self.kid.std:.6f})"
        for whose, found in (("drawn", self.clip), ("real", self.clip_of_real)):
            if found is not None:
                yield (
                    f"CLIP of {whose} pictures by {self.clip_name}: score {found.score:.2f}, "
                    f"picture found by text {found.by_text:.1%}, text by picture "
                    f"{found.by_image:.1%}"
                )
        yield from (f"note: {note}" for note in self.notes)


def evaluate(
    subject: Subject, config: EvalConfig, judges: Judges, reporter: Reporter, tell: Tell
) -> Evaluation:
    """Measure; the same seed and batch size give the same figures on the same machine.

    Raises TrainError for a measure for which there is no judge, nothing that draws, or too little
    to look at: before anything is drawn.
    """
    found: dict[str, Any] = {"subject": subject.name, "seed": config.seed}
    if subject.scalars:
        if config.measures:
            raise TrainError(f"{subject.name} is of no run of train; leave out the measures")
        return Evaluation(**found, validation=dict(subject.scalars))
    measures, notes = _chosen(subject, config, judges)
    if "loss" in measures:
        found |= _losses(subject, config, reporter, tell)
    if measures & set(_PICTURES):
        found |= _pictures(subject, config, _needed(judges, measures), measures, tell)
    return Evaluation(**found, notes=notes)


def _chosen(
    subject: Subject, config: EvalConfig, judges: Judges
) -> tuple[set[str], tuple[str, ...]]:
    """Return what is measured, and notes on what cannot be."""
    lacking = {
        "loss": subject.denoising is None and "pictures have no loss; name a model or a run",
        "fid": judges.features is None and "FID needs features; name a file of them, or a CLIP",
        "kid": judges.features is None and "KID needs features; name a file of them, or a CLIP",
        "clip": judges.clip is None and "the CLIP score needs a CLIP; name the folder of one",
    }
    for measure in config.measures:
        if lacking[measure]:
            raise TrainError(f"{lacking[measure]}, or leave {measure} out of the measures")
    chosen = set(config.measures) or {name for name, reason in lacking.items() if not reason}
    if not chosen:
        raise TrainError(
            "nothing can be measured: pictures have no loss, and FID and KID need features; name a "
            "file of them, or a CLIP"
        )
    notes: list[str] = []
    if "fid" in chosen and judges.features is not None:
        counts = _num_drawn(subject, config), len(subject.places)
        try:
            check_enough(*counts, judges.features.num_features)
        except TrainError as error:
            if "fid" in config.measures:
                raise
            chosen.discard("fid")
            notes.append(str(error))
    return chosen, tuple(notes)


def _needed(judges: Judges, measures: set[str]) -> Judges:
    features = judges.features if measures & {"fid", "kid"} else None
    return Judges(features=features, clip=judges.clip if "clip" in measures else None)


def _num_drawn(subject: Subject, config: EvalConfig) -> int:
    if subject.drawn is not None:
        return len(subject.drawn)
    return len(subject.places) if config.num_drawn is None else config.num_drawn


def _losses(subject: Subject, config: EvalConfig, reporter: Reporter, tell: Tell) -> dict[str, Any]:
    denoising = subject.denoising
    assert denoising is not None
    examples = held_out_examples(subject, config.num_examples, reporter)
    total = config.num_bands * min(config.num_examples, len(subject.places))
    timesteps, losses = denoising.held_out_losses(
        examples,
        chunk=_LOSS_CHUNK,
        repeats=config.num_bands,
        seed=config.seed,
        on_look=lambda done: tell("losses", done, total),
    )
    count = denoising.schedule.num_timesteps
    return {
        "loss": float(losses.mean()),
        "bands": by_band(timesteps, losses, num_timesteps=count, num_bands=config.num_bands),
        "weighting": denoising.settings.weighting,
    }


def _pictures(
    subject: Subject, config: EvalConfig, judges: Judges, measures: set[str], tell: Tell
) -> dict[str, Any]:
    assert subject.real is not None
    size, real, prompts = config.batch_size, subject.real, subject.prompts

    def shown(places: Sequence[int]) -> Pictures:
        for start in range(0, len(places), size):
            part = places[start : start + size]
            yield real.squares(part), [prompts[place] for place in part]
            tell("real pictures", start + len(part), len(places))

    of_real = look(judges, shown(subject.places), subject.device)
    of_drawn = look(judges, _drawn(subject, config, tell), subject.device)
    found: dict[str, Any] = {
        "num_drawn": _num_drawn(subject, config),
        "num_real": len(subject.places),
    }
    if of_drawn.features is not None and of_real.features is not None:
        assert judges.features is not None
        found["features"] = judges.features.name
        pair = of_drawn.features, of_real.features
        if "fid" in measures:
            found["fid"] = frechet_distance(*pair)
        if "kid" in measures:
            found["kid"] = kernel_distance(*pair, seed=config.seed)
    if judges.clip is not None:
        found |= {"clip_name": judges.clip.origin, "clip": of_drawn.found}
        found["clip_of_real"] = of_real.found
    return found


def _drawn(subject: Subject, config: EvalConfig, tell: Tell) -> Pictures:
    """Draw captions of held-out pictures, shuffled, over and over until there are enough."""
    total, size = _num_drawn(subject, config), config.batch_size
    if subject.drawn is not None:
        for start in range(0, total, size):
            places = range(start, min(start + size, total))
            yield subject.drawn.pictures(places), [subject.drawn.captions[i] for i in places]
            tell("drawn pictures", places.stop, total)
        return
    assert subject.denoising is not None
    assert subject.real is not None
    order = torch.randperm(len(subject.places), generator=generator_for(config.seed, "prompts", 0))
    captions = [subject.prompts[subject.places[i]] for i in order.tolist()]
    kept = DrawnFolder(config.out) if config.out is not None else None
    for start in range(0, total, size):
        prompts = [captions[i % len(captions)] for i in range(start, min(start + size, total))]
        first = config.seed + start
        images: Tensor = subject.denoising.samples(prompts, config.samples, first_seed=first)
        if kept is not None:
            kept.add(images, prompts)
        yield images, prompts
        tell("drawing", start + len(prompts), total)
