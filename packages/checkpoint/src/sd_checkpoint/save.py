"""Writing safetensors files."""

import json
import os
from collections.abc import Mapping
from io import BufferedWriter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sd_checkpoint.atomic import atomic_path
from sd_checkpoint.errors import CheckpointError, first_line
from sd_checkpoint.lazy import release
from sd_checkpoint.safetensors_header import DTYPES

__all__ = ["save_safetensors"]

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ALIGNMENT = 8  # of the first tensor, so that readers may map the file


def save_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write `tensors` to `path` whole or not at all, contiguous, with text `metadata`.

    Equal tensors and metadata give equal bytes, which the safetensors library does not promise: it
    orders the metadata at random. Tensors of a lazy mapping are read, written and let go one by
    one, so a model of any size needs the memory of its largest tensor. Tensors that share memory
    are written out each. The header says `format: pt`, which readers of the field look for.
    Raises `CheckpointError` when the place cannot be written to, or for a type that the format
    does not have.
    """
    texts = {"format": "pt", **(metadata or {})}
    header: dict[str, Any] = {"__metadata__": dict(sorted(texts.items()))}
    offset = 0
    for key, dtype, shape in _in_order(tensors, os.fspath(path)):
        end = offset + torch.Size(shape).numel() * dtype.itemsize
        header[key] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    keys = [key for key in header if key != "__metadata__"]
    with atomic_path(path) as temporary:
        try:
            _write(temporary, header, tensors, keys)
        except OSError as error:
            raise CheckpointError(f"cannot write {os.fspath(path)}: {first_line(error)}") from error


def _in_order(
    tensors: Mapping[str, Tensor], path: str
) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
    """Return each tensor's key, type and shape; wide types first, so that all lie aligned."""
    described = []
    for key in tensors:
        tensor = tensors[key]
        if tensor.dtype not in _NAMES:
            raise CheckpointError(f"cannot write {path}: {key} is {tensor.dtype}; convert it")
        described.append((key, tensor.dtype, tuple(tensor.shape)))
    release(tensors)
    return sorted(described, key=lambda row: (-row[1].itemsize, row[0]))


def _write(
    path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor], keys: list[str]
) -> None:
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for key in keys:
            _write_tensor(file, tensors[key])
            release(tensors)


def _write_tensor(file: BufferedWriter, tensor: Tensor) -> None:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    file.write(flat.view(torch.uint8).numpy().data)
