"""Pictures of a subject's class, drawn by the model before it learns, and learnt beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from sd_checkpoint import atomic_path
from sd_pipeline import Txt2Img
from sd_textenc import TextEncoder
from sd_textenc.prompts import expand
from sd_train.data import PictureFolder
from sd_train.finetune_base import Base
from sd_train.finetune_config import PriorConfig
from sd_train.latents import DenoiserSource
from sd_train.processes import first_goes_first
from sd_train.subject import class_prompt_of, knows
from sd_train.task import Batch, BatchSource

PriorConfigT = TypeVar("PriorConfigT", bound=PriorConfig)

_BATCH = 4
_NOTE = "origin.txt"


class PriorSource:
    """Batches of a subject's pictures, each followed by as many of its class, drawn at random."""

    def __init__(self, subject: BatchSource, prior: BatchSource) -> None:
        self.subject = subject
        self.prior = prior

    def __len__(self) -> int:
        """Count the subject's pictures."""
        return len(self.subject)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """Gather the subject's pictures (B) and then the class' (B)."""
        own = self.subject.batch(indices, generator)
        chosen = torch.randint(len(self.prior), (len(indices),), generator=generator).tolist()
        others = self.prior.batch(chosen, generator)
        own, others = _masked_like(own, others), _masked_like(others, own)
        return {name: torch.cat([values, others[name]]) for name, values in own.items()}


def with_prior(
    losses: Tensor, errors: Tensor, prior_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Add the class' loss to the subject's (Ruiz et al., arXiv:2208.12242, equation 2).

    Losses (2 B,) and squared errors (2 B,) are of a batch of `PriorSource`. Returns the loss and
    what is told of it.
    """
    own, prior = losses.chunk(2)
    mse, prior_mse = errors.detach().chunk(2)
    loss = own.mean() + prior_weight * prior.mean()
    return loss, {"mse": mse.mean(), "prior_mse": prior_mse.mean()}


def _masked_like(batch: Batch, other: Batch) -> Batch:
    """Give pictures without masks, beside such as have some, masks of which all is learnt."""
    if "mask" in batch or "mask" not in other:
        return batch
    return {**batch, "mask": torch.ones_like(other["mask"])}


def with_class(config: PriorConfigT, encoder: TextEncoder) -> PriorConfigT:
    """Return the settings with the prompt of the class chosen."""
    prompt = config.class_prompt or class_prompt_of(config, encoder)
    return config.model_copy(update={"class_prompt": prompt})


def class_source(base: Base[PriorConfigT], *, live: bool = False) -> DenoiserSource | None:
    """Prepare the pictures of the class, read or drawn, None where they count nothing.

    `live` is as in `Base.source`.
    """
    config = base.config
    if not config.prior_weight:
        return None
    place = config.class_folder
    if not place:
        with first_goes_first():
            place = str(draw_class_pictures(base))
    folder = PictureFolder(config.data.model_copy(update={"folder": place, "holdout": 0}))
    base.reporter.message(f"{len(folder)} pictures of the class in {place}")
    captions = [config.class_prompt] * len(folder)
    if not config.class_folder:
        names = [Path(str(entry.path)).stem for entry in folder.entries]
        captions = [
            class_caption(config, base.parts.text, int(name)) if name.isdigit() else caption
            for name, caption in zip(names, captions, strict=True)
        ]
    return base.source(folder, [[caption] for caption in captions], live=live)


def class_caption(config: PriorConfig, encoder: TextEncoder, seed: int) -> str:
    """Return what the model draws the picture of a seed by, the same for those of a batch.

    Where it does not know the words of a place it is told the class alone.
    """
    place = expand(config.class_places, seed // _BATCH)
    return f"{config.class_prompt} {place if knows(encoder, place) else ''}".strip()


def draw_class_pictures(base: Base[PriorConfigT]) -> Path:
    """Let the model draw pictures into the run's folder, but for those that are there already.

    Picture i has seed i. Those of other words or another model are removed. Return their folder.
    """
    folder, config = base.run_folder / "class", base.config
    prompt, count = config.class_prompt, config.num_class_images
    places = [config.class_places] if config.class_places else []
    _make_room(folder, "\n".join([prompt, *places, config.model, ""]))
    paths = [folder / f"{seed:04d}.png" for seed in range(count)]
    starts = [
        start
        for start in range(0, count, _BATCH)
        if not all(path.is_file() for path in paths[start : start + _BATCH])
    ]
    if not starts:
        return folder
    base.reporter.message(f"drawing {count} pictures of the class: {prompt!r}")
    pipeline = base.pipeline()
    with base.drawing():
        for start in starts:
            batch = paths[start : start + _BATCH]
            told = class_caption(config, base.parts.text, start)
            request = Txt2Img(prompt=told, seed=start, count=len(batch), batch_size=_BATCH)
            for path, picture in zip(batch, pipeline.txt2img(request), strict=True):
                with atomic_path(path) as temporary:
                    picture.image.save(temporary, format="PNG")
    return folder


def _make_room(folder: Path, origin: str) -> None:
    """Keep beside the pictures what they came from, and remove those that came from else."""
    note = folder / _NOTE
    if note.is_file() and note.read_text(encoding="utf-8") == origin:
        return
    for picture in folder.glob("[0-9][0-9][0-9][0-9].png"):
        picture.unlink()
    with atomic_path(note) as temporary:
        temporary.write_text(origin, encoding="utf-8")
