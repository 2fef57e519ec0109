"""Our arm of a training step: the trainer's own step, on the model and loss of a task of ours."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from benchmarks import learning
from benchmarks.arms import Run
from benchmarks.case import Case
from benchmarks.inputs import Inputs
from benchmarks.learning import Lesson, Witness
from sd_adapters import Lora
from sd_adapters.lora_layer import LoraLayer
from sd_ops import freed_memory_kept
from sd_pipeline import Parts
from sd_train import Batch, DenoiserTrainConfig, LoraTrainConfig, SilentReporter, Validation
from sd_train.config import WeightingSettings
from sd_train.finetune_base import open_base
from sd_train.finetune_config import LoraSettings
from sd_train.latents import DenoiserSource
from sd_train.new_loras import new_loras
from sd_train.prior import PriorSource, with_prior
from sd_train.stream import BatchStream
from sd_train.task import BatchSource, Task
from sd_train.tasks.denoiser import DenoiserTask
from sd_train.tasks.denoising import Denoising
from sd_train.trainer import Trainer


class _Cached:
    """One batch, over and over, as a source with cached latents and texts hands it out."""

    def __init__(self, lesson: Lesson) -> None:
        self._batch = {
            "mean": lesson.latents,
            "std": torch.zeros_like(lesson.latents),
            "hidden_states": lesson.states,
        }

    def __len__(self) -> int:
        return len(self._batch["mean"])

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:  # noqa: ARG002
        return self._batch


class _Finetuning:
    """The loss of every finetuner, over what learns of a model.

    Theirs measure the model on their pictures when they are made; here there are none.
    """

    def __init__(self, parts: Parts, modules: Mapping[str, nn.Module], source: BatchSource) -> None:
        self.source = source
        self._modules = modules
        self._denoising = Denoising(parts, WeightingSettings())

    def modules(self) -> Mapping[str, nn.Module]:
        return self._modules

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        losses, errors = self._denoising.losses(batch, generator)
        if isinstance(self.source, PriorSource):
            return with_prior(losses, errors, learning.PRIOR_WEIGHT)
        return losses.mean(), {"mse": errors.detach().mean()}

    def validate(self) -> Validation:
        raise NotImplementedError

    def export(self, folder: Path) -> None:
        raise NotImplementedError


class OursLearning:
    """The arm."""

    def imports(self, case: Case) -> None:
        """Nothing is left to import: SD 1's text encoder has layers of its own."""

    def load(self, case: Case) -> Sequence[nn.Module]:
        self._config = LoraTrainConfig.model_validate({"model": case.folder, **_settings(case)})
        whole = ["unet"] if case.learns_all else []
        base = open_base(self._config, Path(case.scratch), SilentReporter(), whole=whole)
        self._parts = base.parts
        for unused in (base.parts.vae, base.parts.text):
            unused.to("meta")  # latents and texts are ready
        return [base.parts.unet]

    def prepare(self, case: Case, inputs: Inputs) -> Run:  # noqa: ARG002  (there is a lesson)
        task, learnt = self._task(case, learning.make_lesson(case))
        trainer = Trainer(task, self._config.trainer, Path(case.scratch), SilentReporter())
        for module in task.modules().values():
            module.train()
        stream = BatchStream(
            task.source, batch_size=case.batch, seed=case.seed, position=0, num_workers=0
        )
        witness, kept = Witness(learnt), ExitStack()
        if case.device == "cpu":
            kept.enter_context(freed_memory_kept())  # as `sdcli` does, until the process ends

        def run(_kept: ExitStack = kept) -> Tensor:
            return witness.noted(trainer.step(stream)["loss"])

        return run

    def _task(self, case: Case, lesson: Lesson) -> tuple[Task, dict[str, nn.Parameter]]:
        """Return the task, and what learns under the names that both sides have for it."""
        parts, unet = self._parts, self._parts.unet
        if not case.learns_all:
            settings = LoraSettings(rank=learning.RANK, targets=learning.TARGETS)
            loras = new_loras(parts, settings, case.seed)
            learnt = _named(loras["unet"], unet)
            learning.set_start(learnt, case.seed)
            return _Finetuning(parts, loras, _Cached(lesson)), learnt
        learnt = dict(unet.requires_grad_(True).named_parameters())
        if case.method == "full":
            return _denoiser_task(case, parts, lesson), learnt
        subject, prior = (_Cached(half) for half in lesson.halves())
        return _Finetuning(parts, {"unet": unet}, PriorSource(subject, prior)), learnt


def _denoiser_task(case: Case, parts: Parts, lesson: Lesson) -> DenoiserTask:
    """Return what `sdcli train` trains by, with a batch in place of the source of a folder."""
    told = {"vae": case.folder, "text": {"folder": case.folder}, **_settings(case)}
    source = cast(DenoiserSource, _Cached(lesson))
    return DenoiserTask(parts, source, DenoiserTrainConfig.model_validate(told))


def _settings(case: Case) -> dict[str, object]:
    """Return what all runs are told: what the scripts have, and ours for what they do not have."""
    trainer = {
        "steps": 10**6,
        "batch_size": case.batch,
        "learning_rate": learning.LEARNING_RATE,
        "betas": learning.BETAS,
        "weight_decay": learning.WEIGHT_DECAY,
        "clip_grad_norm": learning.CLIP_NORM,
        "ema_decay": learning.EMA_DECAY if case.ema else 0.0,
        "ema_power": 0.0,
        "precision": case.dtype,
        "device": case.device,
        "seed": case.seed,
    }
    data = {"folder": case.scratch, "size": case.width}  # of the folder nothing is read
    return {"trainer": trainer, "data": data}


def _named(lora: Lora, unet: nn.Module) -> dict[str, nn.Parameter]:
    paths = {f"{lora.prefix}_{path.replace('.', '_')}": path for path, _ in unet.named_modules()}
    found: dict[str, nn.Parameter] = {}
    for name, layer in lora.items():
        assert isinstance(layer, LoraLayer)
        for part, matrix in (("down", layer.lora_down), ("up", layer.lora_up)):
            assert isinstance(matrix.weight, nn.Parameter)
            found[f"{paths[name]}/{part}"] = matrix.weight
    return found
