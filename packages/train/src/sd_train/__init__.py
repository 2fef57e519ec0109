"""One trainer core and one task a training method."""

from sd_pipeline.picture_opener import PictureError, open_picture
from sd_train.binding_config import TextBindConfig
from sd_train.clip_config import ClipTrainConfig
from sd_train.config import (
    Architecture,
    DataConfig,
    DenoiserTrainConfig,
    SampleSettings,
    TrainerConfig,
    VAETrainConfig,
)
from sd_train.data import PictureFolder
from sd_train.data_check import check_pictures, find_pictures
from sd_train.data_summary import summarise
from sd_train.errors import TrainError
from sd_train.finetune_config import (
    DreamBoothConfig,
    FinetuneConfig,
    HypernetworkTrainConfig,
    LoraTrainConfig,
    TextualInversionConfig,
)
from sd_train.learnt import export
from sd_train.rehearsal import Rehearsal
from sd_train.reporter import LineReporter, Reporter, SilentReporter, StepInfo, TrainResult
from sd_train.run import build_task, export_run, load_run, rehearse_run, run
from sd_train.settings import load_toml, read_values, save_config
from sd_train.task import Batch, BatchSource, Opponent, Task, Validation
from sd_train.trainer import train

__all__ = [
    "Architecture",
    "Batch",
    "BatchSource",
    "ClipTrainConfig",
    "DataConfig",
    "DenoiserTrainConfig",
    "DreamBoothConfig",
    "FinetuneConfig",
    "HypernetworkTrainConfig",
    "LineReporter",
    "LoraTrainConfig",
    "Opponent",
    "PictureError",
    "PictureFolder",
    "Rehearsal",
    "Reporter",
    "SampleSettings",
    "SilentReporter",
    "StepInfo",
    "Task",
    "TextBindConfig",
    "TextualInversionConfig",
    "TrainError",
    "TrainResult",
    "TrainerConfig",
    "VAETrainConfig",
    "Validation",
    "build_task",
    "check_pictures",
    "export",
    "export_run",
    "find_pictures",
    "load_run",
    "load_toml",
    "open_picture",
    "read_values",
    "rehearse_run",
    "run",
    "save_config",
    "summarise",
    "train",
]
