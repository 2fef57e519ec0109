"""What the finetuners do alike: the loss, the validation with and without what was learnt."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from sd_pipeline import sha256, weight_file
from sd_train.finetune_base import Base
from sd_train.finetune_config import FinetuneConfig, PriorConfig
from sd_train.images import grid
from sd_train.latents import DenoiserSource
from sd_train.likeness import open_likeness
from sd_train.precision import autocast
from sd_train.prior import PriorSource, with_prior
from sd_train.subject import class_words
from sd_train.task import Batch, BatchSource, Validation
from sd_train.tasks.denoising import Denoising

ConfigT = TypeVar("ConfigT", bound=FinetuneConfig)

_COLUMNS, _CHUNK = 4, 4
_VERSIONS = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}
_LOOKS = 32  # at pictures in a validation: fewer say more of chance than of the weights


class FinetuneTask(ABC, Generic[ConfigT]):
    """Teaches a model a subject or a style; a method says what learns and what is kept.

    With the pictures of a `prior` the class of the subject is learnt along, as its settings say. It
    is made while the model is still what it was, so that the validation can tell what was won.
    """

    def __init__(
        self, base: Base[ConfigT], subject: DenoiserSource, prior: DenoiserSource | None = None
    ) -> None:
        self.base = base
        self.config = base.config
        self.parts = base.parts
        self.networks = (base.parts.unet,)
        self.num_steps = 0
        self.subject = subject
        self.source: BatchSource = subject if prior is None else PriorSource(subject, prior)
        self.denoising = Denoising(
            base.parts, base.config.objective, sample_posterior=base.config.sample_posterior
        )
        self.denoising.planned(base.config.samples)  # told now, not at the first validation
        self.prompts = base.config.samples.prompts[: base.config.samples.count]
        # Of the untaught model the class is drawn: the subject's name is not yet a word.
        plain = [class_words(prompt, base.config) for prompt in self.prompts]
        self.likeness = None
        if base.config.clip:
            folder = subject.folder
            self.likeness = open_likeness(Path(base.config.clip), folder, plain, base.device)
        with autocast(self.config.trainer.precision, base.device), torch.no_grad():
            self.without = self._scalars(self._drawn(plain) if self.likeness else None)

    @abstractmethod
    def modules(self) -> Mapping[str, nn.Module]:
        """Name what learns."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write what was learnt into a folder."""

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare the network's output with its target at random timesteps."""
        losses, errors = self.denoising.losses(batch, generator)
        if not isinstance(self.source, PriorSource):
            return losses.mean(), {"mse": errors.detach().mean()}
        assert isinstance(self.config, PriorConfig)
        return with_prior(losses, errors, self.config.prior_weight)

    def validate(self) -> Validation:
        """Measure the loss, and what it was without what is learnt, and draw samples.

        On held-out pictures; where there are none on those that are learnt, as `seen_loss`. With a
        CLIP the samples are judged too.
        """
        drawn = self._drawn(self.prompts)
        scalars: dict[str, float] = {}
        for name, value in self._scalars(drawn).items():
            scalars |= {name: value, f"{name}_without": self.without[name]}
        if drawn is None:
            return Validation(scalars=scalars)
        return Validation(
            scalars=scalars, images={"samples": grid(drawn, min(_COLUMNS, len(drawn)))}
        )

    def model_name(self) -> str:
        """Return what files call the model that they were made for."""
        return self.base.path.resolve().stem

    def model_hash(self) -> str:
        """Return the SHA-256 of the model's weights, by which the web UI knows it."""
        return sha256(weight_file(self.base.path))

    def _drawn(self, prompts: Sequence[str]) -> Tensor | None:
        """Draw the prompts, None where there are none."""
        return self.denoising.samples(prompts, self.config.samples) if prompts else None

    def _scalars(self, drawn: Tensor | None) -> dict[str, float]:
        """Measure the loss, and judge what was drawn where there is a judge."""
        folder = self.subject.folder
        places = folder.held_out or sorted(set(folder.training))[:_LOOKS]
        repeats = max(1, _LOOKS // len(places))
        batches = self.subject.fixed_batches(places)
        loss = self.denoising.held_out_loss(batches, chunk=_CHUNK, repeats=repeats)
        judged = {}
        if self.likeness is not None and drawn is not None:
            judged = self.likeness.scalars(drawn)
        return {"loss" if folder.held_out else "seen_loss": loss, **judged}


def lora_metadata(task: FinetuneTask[ConfigT]) -> dict[str, str]:
    """Return what a LoRA's header tells of how it came about, in kohya's words and modelspec's."""
    config, family = task.config, task.parts.family
    return {
        "ss_base_model_version": _VERSIONS[family.name],
        "ss_sd_model_name": task.model_name(),
        "ss_new_sd_model_hash": task.model_hash(),
        "ss_steps": str(task.num_steps),
        "ss_learning_rate": str(config.trainer.learning_rate),
        "ss_seed": str(config.trainer.seed),
        "modelspec.architecture": f"{family.architecture}/lora",
        "modelspec.title": config.name,
        "modelspec.trigger_phrase": config.instance_prompt,
    }
