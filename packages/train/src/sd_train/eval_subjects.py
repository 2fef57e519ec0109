"""What is evaluated: a model, a run of training, or pictures that somebody drew."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sd_pipeline import Parts
from sd_train.build import label_table
from sd_train.cache import Cache
from sd_train.config import DataConfig, DenoiserTrainConfig, SampleSettings, WeightingSettings
from sd_train.data import PictureFolder
from sd_train.data_buckets import by_size
from sd_train.data_check import find_pictures
from sd_train.encoded import text_table
from sd_train.errors import TrainError
from sd_train.finetune_base import told_sizes
from sd_train.latents import encode_pictures
from sd_train.learnt import as_learnt
from sd_train.reporter import Reporter
from sd_train.run import build_task, load_run
from sd_train.task import Batch
from sd_train.tasks.denoiser import DenoiserTask
from sd_train.tasks.denoising import Denoising


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is evaluated, and `places` in a folder of real pictures that it never learnt.

    `denoising` is None where nothing draws: then the pictures of `drawn` are judged, or a run that
    trains something else has its own validation in `scalars`.
    """

    name: str
    device: torch.device
    real: PictureFolder | None = None
    places: Sequence[int] = ()
    denoising: Denoising | None = None
    samples: SampleSettings = field(default_factory=SampleSettings)
    drawn: PictureFolder | None = None
    scalars: Mapping[str, float] = field(default_factory=dict)

    @property
    def prompts(self) -> list[str]:
        """What is told of each real picture: its caption, or its class where no text is heard."""
        assert self.real is not None
        denoising = self.denoising
        if denoising is None or denoising.parts.text_encoder is not None:
            return self.real.captions
        return [entry.label or "" for entry in self.real.entries]


def model_subject(
    parts: Parts, name: str, data: str, *, device: torch.device, guidance_scale: float
) -> Subject:
    """Take a model, on its device already, and a folder of which all is held out.

    Raises TrainError for a model that text alone does not tell what to draw.
    """
    if parts.task != "txt2img" or parts.family.name == "sdxl-refiner":
        raise TrainError(f"{name!r} is no text-to-image model; name one")
    side = parts.unet.config.sample_size * parts.vae.config.downsampling
    real = open_all(data, side, parts)
    return Subject(
        name=name,
        device=device,
        real=real,
        places=range(len(real)),
        denoising=Denoising(parts, WeightingSettings()),
        samples=SampleSettings(guidance_scale=guidance_scale),
    )


def open_all(data: str, size: int, parts: Parts | None = None) -> PictureFolder:
    """Open a folder's pictures, none of them held out from the others, or kept in memory.

    For a model that is told classes alone their labels tell which each is of, or else the folders.
    """
    config = DataConfig(folder=data, size=size, holdout=0, in_memory=False)
    if parts is not None and parts.text_encoder is None and parts.classes is not None:
        told = any(entry.label is not None for entry in find_pictures(data).entries)
        labels = {"labels": "data" if told else "folders", "classes": parts.classes.names}
        config = config.model_copy(update=labels)
    return PictureFolder(config)


@contextmanager
def run_subject(
    run_folder: Path,
    reporter: Reporter,
    *,
    data: str | None = None,
    device: str | None = None,
    best: bool = False,
) -> Iterator[Subject]:
    """Take a run's averaged weights, of its latest checkpoint or the `best`.

    Held out is what the run has held out, or else the whole of another folder, `data`.
    """
    config = load_run(run_folder)
    if device is not None:
        trainer = config.trainer.model_copy(update={"device": device})
        config = config.model_copy(update={"trainer": trainer})
    if isinstance(config, DenoiserTrainConfig):
        config = config.model_copy(update={"cache_latents": False})  # few are needed
    task = build_task(config, run_folder, reporter)
    with as_learnt(task, config.trainer, run_folder, reporter, best=best) as checkpoint:
        name = str(checkpoint)
        if isinstance(task, DenoiserTask):
            yield _denoiser_subject(task, name, data)
            return
        if data is not None:
            raise TrainError(f"{run_folder} is no run of train; leave --data out for its own check")
        place = next(iter(next(iter(task.modules().values())).parameters())).device
        yield Subject(name=name, device=place, scalars=task.validate().scalars)


def _denoiser_subject(task: DenoiserTask, name: str, data: str | None) -> Subject:
    real, denoising = task.source.folder, task.denoising
    places: Sequence[int] = real.held_out
    if data is not None:
        real = open_all(data, real.config.size, denoising.parts)
        places = range(len(real))
    if not places:
        raise TrainError(f"{name}: the run has held nothing out (data.holdout = 0); give --data")
    return Subject(
        name=name,
        device=denoising.device,
        real=real,
        places=places,
        denoising=denoising,
        samples=task.config.samples,
    )


def held_out_examples(subject: Subject, count: int, reporter: Reporter) -> list[Batch]:
    """Encode up to `count` of the held-out pictures, evenly spaced, with their captions."""
    assert subject.denoising is not None
    assert subject.real is not None
    count = min(count, len(subject.places))
    chosen = [subject.places[i * len(subject.places) // count] for i in range(count)]
    parts, folder = subject.denoising.parts, subject.real
    return [
        _examples(parts, folder, members, reporter)
        for members in by_size(chosen, folder.sizes).values()
    ]


def _examples(
    parts: Parts, folder: PictureFolder, places: Sequence[int], reporter: Reporter
) -> Batch:
    """Encode pictures of one size, and their captions."""
    captions = [[folder.captions[place]] for place in places]
    empty, kept = parts.zeros_for_empty, torch.zeros(len(places), dtype=torch.bool)
    told: dict[str, Tensor] = {}
    if parts.text_encoder is not None:
        table = text_table(parts.text_encoder, captions, Cache(), reporter, zeros_for_empty=empty)
        told |= table.take(range(len(places)), kept)
    labels = label_table(folder)
    if labels is not None and parts.classes is not None:
        told |= labels.take(places, kept)
    latents = encode_pictures(parts.vae, folder, places)
    if parts.unet.config.takes_sizes:
        told["sizes"] = told_sizes(folder)[list(places)]
    return {**told, **latents}
