"""Which model a name stands for."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sd_pipeline import Model


def locate_model(name: str, *, variant: str | None = None) -> Path:
    """Return the folder or file of the embedded model, of one on disk, or of one of the Hub.

    Raises `SceneError` when the embedded model is not installed, `PipelineError` when there is no
    such model.
    """
    from sd_scenes import MODEL_NAME, model_folder

    if name == MODEL_NAME:
        return model_folder()
    from sd_pipeline import locate

    return locate(name, variant=variant)


def open_named(name: str, *, variant: str | None, use_ema: bool) -> "tuple[Model, Path]":
    """Open the model that `name` stands for, and return where it lies, too."""
    from sd_pipeline import open_model

    path = locate_model(name, variant=variant)
    return open_model(path, variant=variant, use_ema=use_ema), path
