"""What a model's folder or file holds, told from its configs and headers alone."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from sd_checkpoint import Checkpoint, CheckpointError, open_weights
from sd_pipeline.config_types import load_part_config
from sd_pipeline.errors import PipelineError
from sd_pipeline.families import family_of_keys, task_of_pipeline
from sd_pipeline.folder import TEXT_WEIGHTS, WEIGHTS, open_folder, own_variants, stem_of
from sd_pipeline.hub import PART_FOLDERS
from sd_pipeline.model import Model
from sd_pipeline.parts import unfit_keys
from sd_pipeline.scheduler import Scheduler
from sd_pipeline.single_file import UNET_PREFIX, VAE_PREFIX, open_single_file, told_prediction

FOLDER, SINGLE_FILE = "diffusers folder", "single file"


@dataclass(frozen=True, kw_only=True, slots=True)
class PartInfo:
    """Describe one network: its parameters, and what its weights are stored as."""

    name: str
    num_parameters: int
    dtypes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """Describe a model; `missing` says what keeps it from drawing, empty when nothing does.

    `family`, `task` and `prediction` are "" where a model that lacks parts does not tell;
    `prediction_told_by` says where the prediction is written, `num_bytes` is the size of all files;
    `classes` are the names of those that it is told.
    """

    path: Path
    layout: str
    family: str = ""
    task: str = ""
    prediction: str = ""
    prediction_told_by: str = ""
    zero_terminal_snr: bool = False
    has_ema: bool = False
    classes: tuple[str, ...] = ()
    parts: tuple[PartInfo, ...] = ()
    num_bytes: int = 0
    missing: tuple[str, ...] = ()


def inspect_model(path: Path) -> ModelInfo:
    """Look into a model's folder or file, reading no weights.

    A part that is absent or does not fit is told in `missing`. Raises `PipelineError` or
    `CheckpointError` for what is no model at all, or a broken file.
    """
    return _inspect_folder(path) if path.is_dir() else _inspect_file(path)


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weight_file(path: Path, variant: str | None = None) -> Path:
    """Return the file whose hash names a model: itself, or the UNet's weights of a folder.

    Raises `CheckpointError` when a folder has no such weights.
    """
    if not path.is_dir():
        return path
    own = own_variants(path, PART_FOLDERS, variant)["unet"]
    return open_weights(path / "unet", WEIGHTS, own).path


def _inspect_file(path: Path) -> ModelInfo:
    checkpoint = Checkpoint.open(path)
    size = path.stat().st_size
    try:
        family = family_of_keys(checkpoint.keys(), what=str(path))
        model = open_single_file(path)
    except (PipelineError, CheckpointError) as error:
        return ModelInfo(path=path, layout=SINGLE_FILE, num_bytes=size, missing=(str(error),))
    prefixes = {"unet": UNET_PREFIX, "vae": VAE_PREFIX}
    prefixes |= {tower.folder: tower.prefix for tower in family.towers}
    weights = {name: checkpoint.under(prefix) for name, prefix in prefixes.items()}
    return _of(model, path, told_prediction(checkpoint, family)[1], size, weights)


def _inspect_folder(path: Path) -> ModelInfo:
    if not (path / "model_index.json").is_file():
        raise PipelineError(f"{path} has no model_index.json; name a model's folder or file")
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    missing = missing_parts(path)
    if missing:
        index = load_part_config(path / "model_index.json")
        task = task_of_pipeline(str(index.get("_class_name"))) or ""
        return ModelInfo(
            path=path, layout=FOLDER, task=task, num_bytes=size, missing=tuple(missing)
        )
    model = open_folder(path)
    weights = {name: open_weights(path / name, WEIGHTS) for name in ("unet", "vae")}
    for tower in model.family.towers:
        weights[tower.folder] = open_weights(path / tower.folder, TEXT_WEIGHTS)
    return _of(model, path, "scheduler_config.json", size, weights)


def missing_parts(path: Path, variant: str | None = None) -> list[str]:
    """Try every part that a folder's index names, and say in a line what is wrong with each."""
    index = load_part_config(path / "model_index.json")
    named = [part for part in PART_FOLDERS if _is_named(index.get(part))]
    own = own_variants(path, [part for part in named if not _has_no_weights(part)], variant)
    missing = []
    for part in named:
        try:
            _require_part(path / part, own.get(part))
        except (CheckpointError, PipelineError) as error:
            missing.append(str(error))
    return missing


def _is_named(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None


def _has_no_weights(part: str) -> bool:
    return part.startswith(("tokenizer", "scheduler"))


def _require_part(folder: Path, variant: str | None) -> None:
    if not folder.is_dir():
        raise PipelineError(f"{folder} does not exist")
    if folder.name.startswith("tokenizer"):
        return
    if folder.name == "scheduler":
        Scheduler.from_diffusers(load_part_config(folder / "scheduler_config.json"))
        return
    load_part_config(folder / "config.json")
    open_weights(folder, stem_of(folder.name), variant)


def _of(
    model: Model, path: Path, told_by: str, num_bytes: int, weights: Mapping[str, Checkpoint]
) -> ModelInfo:
    diffusion = model.scheduler.diffusion
    return ModelInfo(
        path=path,
        layout=FOLDER if path.is_dir() else SINGLE_FILE,
        family=model.family.title,
        task=model.task,
        prediction=diffusion.prediction,
        prediction_told_by=told_by,
        zero_terminal_snr=diffusion.zero_terminal_snr,
        has_ema=model.learnt_and_averaged is not None,
        classes=() if model.classes is None else model.classes.names,
        parts=tuple(_part(name, tensors) for name, tensors in weights.items()),
        num_bytes=num_bytes,
        missing=tuple(unfit_keys(model)),
    )


def _part(name: str, weights: Checkpoint) -> PartInfo:
    floating = {str(d).removeprefix("torch.") for d in weights.dtypes().values()}
    return PartInfo(
        name=name,
        num_parameters=sum(prod(shape) for shape in weights.shapes().values()),
        dtypes=tuple(sorted(floating)),
    )
