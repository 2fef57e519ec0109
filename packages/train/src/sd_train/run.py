"""A whole run from its settings: build the task, keep the resolved settings, train, export."""

from pathlib import Path
from typing import TYPE_CHECKING

from sd_train.config import DenoiserTrainConfig, VAETrainConfig
from sd_train.reporter import Reporter, SilentReporter, TrainResult
from sd_train.settings import save_config
from sd_train.trainer import check_run_folder, export, train

if TYPE_CHECKING:
    from sd_train.tasks.denoiser import DenoiserTask
    from sd_train.tasks.vae import VAETask

RunConfig = VAETrainConfig | DenoiserTrainConfig


def build_task(
    config: RunConfig, run_folder: Path, reporter: Reporter | None = None
) -> "VAETask | DenoiserTask":
    """Build the task of a run; what frozen encoders say is cached in `run_folder/cache`."""
    # Imported here: the tasks import every network, which takes seconds.
    if isinstance(config, VAETrainConfig):
        from sd_train.tasks.vae import build_vae_task

        return build_vae_task(config, reporter)
    from sd_train.build import build_denoiser_task

    return build_denoiser_task(config, run_folder / "cache", reporter)


def run(
    config: RunConfig, run_folder: Path, reporter: Reporter | None = None, *, resume: bool = False
) -> TrainResult:
    """Train what `config` says in `run_folder`, which keeps the resolved settings in config.toml.

    Raises TrainError for mistakes in the settings, the data or the folder.
    """
    reporter = reporter or SilentReporter()
    check_run_folder(run_folder, resume=resume)
    task = build_task(config, run_folder, reporter)
    save_config(task.config, run_folder / "config.toml")
    return train(task, config.trainer, run_folder, reporter, resume=resume)


def export_run(config: RunConfig, run_folder: Path, folder: Path) -> Path:
    """Export the latest checkpoint of a run, going on or not; return the checkpoint."""
    return export(build_task(config, run_folder), config.trainer, run_folder, folder)
