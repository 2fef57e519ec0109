"""One trainer core and one task a training method."""

from sd_train.config import (
    Architecture,
    DataConfig,
    DenoiserTrainConfig,
    TrainerConfig,
    VAETrainConfig,
)
from sd_train.data import PictureFolder
from sd_train.errors import TrainError
from sd_train.reporter import LineReporter, Reporter, SilentReporter, StepInfo, TrainResult
from sd_train.run import build_task, export_run, run
from sd_train.settings import load_toml, save_config
from sd_train.task import Batch, BatchSource, Task, Validation
from sd_train.trainer import export, train

__all__ = [
    "Architecture",
    "Batch",
    "BatchSource",
    "DataConfig",
    "DenoiserTrainConfig",
    "LineReporter",
    "PictureFolder",
    "Reporter",
    "SilentReporter",
    "StepInfo",
    "Task",
    "TrainError",
    "TrainResult",
    "TrainerConfig",
    "VAETrainConfig",
    "Validation",
    "build_task",
    "export",
    "export_run",
    "load_toml",
    "run",
    "save_config",
    "train",
]
