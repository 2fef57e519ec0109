"""Files of `torch.save`: tensors and plain containers, and nothing else."""

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sd_checkpoint.apart import index_apart
from sd_checkpoint.entry import Entry
from sd_checkpoint.errors import CheckpointError, name_keys
from sd_checkpoint.kinds import PICKLE, SAFETENSORS, ZIP, kind_of
from sd_checkpoint.mapped import MappedFile
from sd_checkpoint.restricted.values import ITEMSIZE, RefusedError, Storage, TensorSpec

__all__ = ["PICKLE_SUFFIXES", "load_pickle", "read_entries", "require_pickle"]

PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
_MAX_DEPTH = 64
_MAX_TEXT = 1000


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """Read what `torch.save` wrote: dicts, lists, tuples, texts, numbers, None, and tensors.

    Sets come as lists, ordered dicts as dicts, names of known classes as texts, and the state of
    known objects as None. Tensors are views of the file's memory; writing into one changes those
    that share its storage, and never the file. Nothing in the file is run.
    Raises `CheckpointError` naming what the file asks for beyond that, or what is broken in it.
    """
    file = MappedFile(Path(path))
    require_pickle(file)
    return decode(index_apart(file), file)


def read_entries(file: MappedFile) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the tensors of a state dict by key: those under `state_dict`, or of the whole file.

    With them come, as texts, the short texts and numbers beside them, such as `global_step`; all
    else that is no tensor is passed over. Raises `CheckpointError` when there is no tensor.
    """
    index = index_apart(file)
    entries = _checked(index, file)
    value = _decoded(index.get("tree"), entries, file)
    texts = _texts(value) if isinstance(value, Mapping) else {}
    inner = value.get("state_dict") if isinstance(value, Mapping) else None
    if isinstance(inner, Mapping) and any(isinstance(item, Entry) for item in inner.values()):
        value = inner
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{file.path} holds a {type(value).__name__}, not a dict of tensors")
    found = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Entry)}
    if not found:
        raise CheckpointError(
            f"{file.path} holds no tensors by name, but {name_keys(map(str, value))}"
        )
    return found, texts


def _texts(values: Mapping[Any, Any]) -> dict[str, str]:
    plain = {k: str(v) for k, v in values.items() if isinstance(v, str | int | float)}
    return {k: v for k, v in plain.items() if isinstance(k, str) and len(v) <= _MAX_TEXT}


def require_pickle(file: MappedFile) -> None:
    """Raise `CheckpointError` saying what the file is, unless torch.save may have written it."""
    kind = kind_of(file.read(0, 512))
    if kind == SAFETENSORS:
        right = file.path.with_suffix(".safetensors").name
        raise CheckpointError(f"{file.path} is {kind} under a wrong name; rename it to {right}")
    if kind not in (ZIP, PICKLE):
        raise CheckpointError(
            f"{file.path} is {kind or 'of no known kind'}; what torch.save writes is expected"
        )


def decode(index: Mapping[str, Any], file: MappedFile) -> Any:
    """Return the containers and tensors that an index of `file` describes, having checked it."""
    return _decoded(index.get("tree"), [entry.read() for entry in _checked(index, file)], file)


def _checked(index: Mapping[str, Any], file: MappedFile) -> list[Entry]:
    """Return where the tensors lie, once more checked against the file."""
    try:
        return [_entry(row, index["storages"], file) for row in index["tensors"]]
    except (RefusedError, KeyError, TypeError, ValueError) as error:
        raise _bad_index(file) from error


def _entry(row: Any, storages: Any, file: MappedFile) -> Entry:
    dtype, shape, strides, key, offset = row
    start, length = storages[key]
    size = ITEMSIZE[dtype]
    storage = Storage(key, dtype, length)
    spec = TensorSpec(storage, dtype, tuple(shape), tuple(strides), offset)
    if type(start) is not int or type(length) is not int or not 0 <= start <= file.size - length:
        raise ValueError(key)
    return Entry(
        file=file,
        dtype=getattr(torch, dtype),
        shape=spec.shape,
        offset=start + offset * size,
        strides=spec.strides,
    )


def _decoded(node: Any, tensors: list[Any], file: MappedFile) -> Any:
    try:
        return _plain(node, tensors, 0)
    except (IndexError, TypeError, ValueError) as error:
        raise _bad_index(file) from error


def _plain(node: Any, tensors: list[Any], depth: int) -> Any:
    """Return what a node of `restricted.index.make_index` stands for."""
    if node is None or isinstance(node, bool | int | float | str):
        return node
    if depth > _MAX_DEPTH:
        raise ValueError(depth)
    depth += 1
    match node:
        case ["list", items]:
            return [_plain(item, tensors, depth) for item in items]
        case ["tuple", items]:
            return tuple(_plain(item, tensors, depth) for item in items)
        case ["dict", pairs]:
            return {_plain(k, tensors, depth): _plain(v, tensors, depth) for k, v in pairs}
        case ["tensor", int(number)] if number >= 0:
            return tensors[number]
        case ["bytes", str(text)]:
            return base64.b64decode(text, validate=True)
        case ["float", ("nan" | "inf" | "-inf") as text]:
            return float(text)
    raise ValueError(node)


def _bad_index(file: MappedFile) -> CheckpointError:
    return CheckpointError(f"{file.path} cannot be read: what it says of itself cannot be")
