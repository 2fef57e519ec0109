"""Our arm of a training step: the trainer's own step, on a finetuner's model and objective."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

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
from sd_train import Batch, LoraTrainConfig, SilentReporter, Validation
from sd_train.config import WeightingSettings
from sd_train.finetune_base import open_base
from sd_train.finetune_config import LoraSettings
from sd_train.new_loras import new_loras
from sd_train.stream import BatchStream
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


class _Task:
    """The loss of every finetuner, over what learns of a model."""

    def __init__(self, parts: Parts, modules: Mapping[str, nn.Module], lesson: Lesson) -> None:
        self.source = _Cached(lesson)
        self._modules = modules
        self._denoising = Denoising(parts, WeightingSettings())

    def modules(self) -> Mapping[str, nn.Module]:
        return self._modules

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        losses, errors = self._denoising.losses(batch, generator)
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
        self._config = _config(case)
        whole = ["unet"] if case.method == "full" else []
        base = open_base(self._config, Path(case.scratch), SilentReporter(), whole=whole)
        self._parts = base.parts
        for unused in (base.parts.vae, base.parts.text):
            unused.to("meta")  # latents and texts are ready
        return [base.parts.unet]

    def prepare(self, case: Case, inputs: Inputs) -> Run:  # noqa: ARG002  (there is a lesson)
        modules, learnt = self._learning(case)
        task = _Task(self._parts, modules, learning.make_lesson(case))
        trainer = Trainer(task, self._config.trainer, Path(case.scratch), SilentReporter())
        for module in modules.values():
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

    def _learning(self, case: Case) -> tuple[Mapping[str, nn.Module], dict[str, nn.Parameter]]:
        """Return what learns, and its parameters under the names that both sides have for them."""
        unet = self._parts.unet
        if case.method == "full":
            unet.requires_grad_(True)
            return {"unet": unet}, dict(unet.named_parameters())
        settings = LoraSettings(rank=learning.RANK, targets=learning.TARGETS)
        loras = new_loras(self._parts, settings, case.seed)
        learnt = _named(loras["unet"], unet)
        learning.set_start(learnt, case.seed)
        return loras, learnt


def _config(case: Case) -> LoraTrainConfig:
    """Return the settings: those of the scripts, and ours for what they do not have."""
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
    return LoraTrainConfig.model_validate({"model": case.folder, "trainer": trainer, "data": data})


def _named(lora: Lora, unet: nn.Module) -> dict[str, nn.Parameter]:
    paths = {f"{lora.prefix}_{path.replace('.', '_')}": path for path, _ in unet.named_modules()}
    found: dict[str, nn.Parameter] = {}
    for name, layer in lora.items():
        assert isinstance(layer, LoraLayer)
        for part, matrix in (("down", layer.lora_down), ("up", layer.lora_up)):
            assert isinstance(matrix.weight, nn.Parameter)
            found[f"{paths[name]}/{part}"] = matrix.weight
    return found
