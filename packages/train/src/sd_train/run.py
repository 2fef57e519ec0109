"""A whole run from its settings: build the task, keep the resolved settings, train, export."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from sd_train.binding_config import TextBindConfig
from sd_train.cache import first_for_all
from sd_train.clip_config import ClipTrainConfig
from sd_train.config import DenoiserTrainConfig, TrainerConfig, VAETrainConfig
from sd_train.errors import TrainError
from sd_train.finetune_config import (
    DreamBoothConfig,
    FinetuneConfig,
    HypernetworkTrainConfig,
    LoraTrainConfig,
    TextualInversionConfig,
)
from sd_train.interrupts import signals_remembered
from sd_train.learnt import export
from sd_train.processes import is_first, joined
from sd_train.rehearsal import Rehearsal, rehearse
from sd_train.reporter import Reporter, SilentReporter, TrainResult
from sd_train.run_lock import only_trainer
from sd_train.settings import parse_config, read_values
from sd_train.task import Task
from sd_train.trainer import check_run_folder, train

RunConfig = VAETrainConfig | DenoiserTrainConfig | TextBindConfig | ClipTrainConfig | FinetuneConfig
FINETUNERS: Mapping[str, type[FinetuneConfig]] = {
    "lora": LoraTrainConfig,
    "textual_inversion": TextualInversionConfig,
    "hypernetwork": HypernetworkTrainConfig,
    "dreambooth": DreamBoothConfig,
}


class ConfiguredTask(Task, Protocol):
    """A task that knows its settings, every open one decided."""

    @property
    def config(self) -> Any:
        """The settings, of the kind that the task was built from."""


def build_task(
    config: RunConfig, run_folder: Path, reporter: Reporter | None = None
) -> ConfiguredTask:
    """Build the task of a run; what frozen encoders say is cached in `run_folder/cache`."""
    reporter = reporter or SilentReporter()
    # Imported here: the tasks import every network, which takes seconds.
    match config:
        case VAETrainConfig():
            from sd_train.tasks.vae import build_vae_task

            return build_vae_task(config, reporter)
        case DenoiserTrainConfig():
            from sd_train.build import build_denoiser_task

            return build_denoiser_task(config, run_folder / "cache", reporter)
        case TextBindConfig():
            from sd_train.tasks.binding import build_binding_task

            return build_binding_task(config, reporter)
        case ClipTrainConfig():
            from sd_train.tasks.clip import build_clip_task

            return build_clip_task(config, reporter)
        case LoraTrainConfig():
            from sd_train.tasks.lora import build_lora_task

            return build_lora_task(config, run_folder, reporter)
        case TextualInversionConfig():
            from sd_train.tasks.textual_inversion import build_textual_inversion_task

            return build_textual_inversion_task(config, run_folder, reporter)
        case HypernetworkTrainConfig():
            from sd_train.tasks.hypernetwork import build_hypernetwork_task

            return build_hypernetwork_task(config, run_folder, reporter)
        case DreamBoothConfig():
            from sd_train.tasks.dreambooth import build_dreambooth_task

            return build_dreambooth_task(config, run_folder, reporter)
    raise TrainError(
        f"{type(config).__name__} is no method's settings; use {', '.join(FINETUNERS)}"
    )


def run(
    config: RunConfig, run_folder: Path, reporter: Reporter | None = None, *, resume: bool = False
) -> TrainResult:
    """Train what `config` says in `run_folder`, which keeps the resolved settings in config.toml.

    Where torchrun has started several processes they train it together (see `train`). Raises
    TrainError for mistakes in the settings, the data or the folder.
    """
    reporter = reporter or SilentReporter()
    with joined():
        if not is_first():
            reporter = SilentReporter()
        check_run_folder(run_folder, resume=resume)
        with only_trainer(run_folder), signals_remembered():
            task = build_task(config, run_folder, reporter)
            settings = task.config
            return train(task, _loop(task), run_folder, reporter, resume=resume, settings=settings)


def rehearse_run(
    config: RunConfig, run_folder: Path, reporter: Reporter | None = None
) -> Rehearsal:
    """Find out what a run costs by a few of its steps; nothing is written.

    Of what frozen encoders say of the data a piece is made, and the time and disk that the whole
    needs are told from it. Raises as `run`.
    """
    with first_for_all() as to_encode:
        task = build_task(config, run_folder, reporter)
    return rehearse(task, _loop(task), run_folder, to_encode)


def export_run(
    config: RunConfig,
    run_folder: Path,
    folder: Path,
    reporter: Reporter | None = None,
    *,
    best: bool = False,
) -> Path:
    """Export a run's latest whole checkpoint or its best, going on or not; return which it is."""
    with first_for_all():
        task = build_task(config, run_folder)
    return export(task, _loop(task), run_folder, folder, reporter, best=best)


def load_run(run_folder: Path) -> RunConfig:
    """Read the settings of a run, of whatever kind it is; raises TrainError if it is none."""
    path = run_folder / "config.toml"
    if not path.is_file():
        raise TrainError(f"{run_folder} holds no run: it has no config.toml")
    values = read_values(path)
    config: RunConfig = parse_config(_kind_of(values), values, origin=str(path))
    return config


def _kind_of(values: Mapping[str, Any]) -> type[Any]:
    for kind in (TextBindConfig, ClipTrainConfig):
        if values.get("method") == kind.model_fields["method"].default:
            return kind
    if values.get("method") in FINETUNERS:
        return FINETUNERS[values["method"]]
    # A denoiser's run names the autoencoder it learned with; an autoencoder's has one of its own.
    return VAETrainConfig if isinstance(values.get("vae"), dict) else DenoiserTrainConfig


def _loop(task: ConfiguredTask) -> TrainerConfig:
    config: TrainerConfig = task.config.trainer
    return config
