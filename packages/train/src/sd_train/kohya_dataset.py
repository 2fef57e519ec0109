"""Data sets described by a TOML file as kohya's sd-scripts read it."""

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sd_train.caption_tags import TagOrder
from sd_train.entries import CAPTION_SUFFIXES, Found, Skipped, Subset
from sd_train.errors import TrainError
from sd_train.folder_scan import MAX_REPEATS, add_entry, list_pictures
from sd_train.settings import parse_config

_DECIDED_ELSEWHERE = frozenset({
    "batch_size", "resolution", "enable_bucket", "bucket_no_upscale", "bucket_reso_steps",
    "min_bucket_reso", "max_bucket_reso", "skip_image_resolution", "network_multiplier",
    "validation_split", "validation_seed", "color_aug", "flip_aug", "face_crop_aug_range",
    "random_crop", "random_crop_padding_percent", "cache_info", "secondary_separator",
    "enable_wildcard",
    "caption_dropout_every_n_epochs", "caption_dropout_rate", "caption_tag_dropout_rate",
    "token_warmup_min", "token_warmup_step", "resize_interpolation", "alpha_mask",
    "multires_training", "max_token_length", "debug_dataset", "prior_loss_weight",
    "custom_attributes",
})  # fmt: skip
_NOT_READ = {
    "metadata_file": "write the captions into a metadata.jsonl, or into a file a picture",
    "conditioning_data_dir": "this trainer knows no ControlNet; leave it out",
}


class _Dataset(BaseModel):
    model_config = ConfigDict(extra="allow")

    subsets: list[dict[str, Any]]


class _DatasetFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    general: dict[str, Any] = {}
    datasets: list[_Dataset]


class _KohyaSubset(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    image_dir: Annotated[str, Field(min_length=1)]
    num_repeats: Annotated[int, Field(ge=1, le=MAX_REPEATS)] = 1
    class_tokens: str | None = None
    caption_extension: str | None = None
    caption_prefix: str = ""
    caption_suffix: str = ""
    shuffle_caption: bool = False
    keep_tokens: Annotated[int, Field(ge=0)] = 0
    keep_tokens_separator: str = ""
    caption_separator: Annotated[str, Field(min_length=1)] = ","
    is_reg: bool = False

    @field_validator("caption_extension")
    @classmethod
    def _is_an_ending(cls, ending: str | None) -> str | None:
        if ending and not re.fullmatch(r"\.[\w.-]+", ending):
            raise ValueError("a caption file's ending is a dot and letters; write it as '.txt'")
        return ending

    def subset(self) -> Subset:
        suffixes = (self.caption_extension,) if self.caption_extension else CAPTION_SUFFIXES
        return Subset(
            class_caption=self.class_tokens or "",
            caption_suffixes=suffixes,
            prefix=self.caption_prefix,
            suffix=self.caption_suffix,
            repeats=self.num_repeats,
            tag_order=TagOrder(
                shuffle=self.shuffle_caption,
                keep_tokens=self.keep_tokens,
                separator=self.caption_separator,
                keep_separator=self.keep_tokens_separator,
            ),
        )


def scan_dataset_file(path: Path) -> Found:
    """List the pictures of a dataset TOML: `[general]`, `[[datasets]]`, `[[datasets.subsets]]`.

    The lower level wins. Pictures lie in `image_dir` itself, which may be relative to the file or,
    as kohya has it, to the working directory. What a run file decides here is told in the notes.
    Raises TrainError for what is no such file, for unknown settings and missing folders.
    """
    described = parse_config(_DatasetFile, _read_toml(path), origin=str(path))
    found = Found()
    told: dict[str, None] = {}
    for number, dataset in enumerate(described.datasets):
        seen: set[Path] = set()
        for place, values in enumerate(dataset.subsets):
            merged = described.general | (dataset.model_extra or {}) | values
            origin = f"{path}: datasets[{number}].subsets[{place}]"
            told |= dict.fromkeys(_taken_out(merged, origin))
            subset = parse_config(_KohyaSubset, merged, origin=origin)
            folder = _folder(path, subset.image_dir, origin)
            if folder in seen:
                found.notes.append(f"{origin}: image_dir is that of a subset before; left out")
                continue
            seen.add(folder)
            _add_pictures(folder, subset, found)
    if told:
        names = ", ".join(told)
        found.notes.append(f"{path.name}: not applied, the run file decides: {names}")
    _settle(found)
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise TrainError(f"dataset file {path} cannot be read: {error}") from error


def _taken_out(values: dict[str, Any], origin: str) -> list[str]:
    """Take out of `values` what kohya knows and this trainer does not; return what matters of it.

    Raises TrainError for what cannot be left out without changing the data set.
    """
    for name, mend in _NOT_READ.items():
        if name in values:
            raise TrainError(f"{origin}: {name} is not read; {mend}")
    known = [name for name in values if name in _DECIDED_ELSEWHERE]
    return [name for name in known if values.pop(name)]


def _folder(path: Path, image_dir: str, origin: str) -> Path:
    for folder in (path.parent / image_dir, Path(image_dir)):
        if os.path.isdir(folder):  # Path.is_dir raises on names that are too long
            return folder
    raise TrainError(f"{origin}: image_dir {image_dir!r} is not a folder; name one with pictures")


def _settle(found: Found) -> None:
    """Name a file once: subsets may lie in one another."""
    used = {os.path.normpath(str(entry.path)) for entry in found.entries}
    skipped = {item.what: item for item in found.skipped if os.path.normpath(item.what) not in used}
    found.skipped = list(skipped.values())
    found.others = list({item.what: item for item in found.others}.values())


def _add_pictures(folder: Path, settings: _KohyaSubset, found: Found) -> None:
    subset = settings.subset()
    num_before = len(found.entries)
    for path in list_pictures(folder, found):
        if path.parent != folder:
            reason = "it lies in a subfolder of image_dir; name that folder as a subset"
            found.skipped.append(Skipped(str(path), reason, "in a subfolder"))
        elif settings.is_reg:
            reason = "regularisation pictures (is_reg) are not learnt from; leave the subset out"
            found.skipped.append(Skipped(str(path), reason, "regularisation"))
        else:
            add_entry(path, subset, found)
    found.notes.append(
        f"{folder}: {len(found.entries) - num_before} pictures, {subset.repeats} repeats, "
        f"class {subset.class_caption!r}"
    )
