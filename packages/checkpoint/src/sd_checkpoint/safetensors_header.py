"""The header of a safetensors file: what lies where."""

from collections.abc import Iterable
from typing import Any

import torch

from sd_checkpoint.entry import Entry
from sd_checkpoint.errors import CheckpointError, first_line
from sd_checkpoint.mapped import MappedFile
from sd_checkpoint.strict_json import parse_json

__all__ = ["DTYPES", "MAX_HEADER", "read_header"]

MAX_HEADER = 100_000_000  # bytes; the format's own limit
_MAX_AXES = 32
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "C64": torch.complex64,
}


def read_header(file: MappedFile) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the tensors of a safetensors file, and the header's text.

    The tensors must fill the file from the header to the end without hole or overlap, as the
    format demands. Raises `CheckpointError` when anything is amiss.
    """
    try:
        header, start = _header(file)
        texts = _texts(header.pop("__metadata__", {}))
        entries = {key: _entry(key, value, file, start) for key, value in header.items()}
        _require_no_gap(entries.items(), start, file.size)
    except ValueError as error:
        raise CheckpointError(
            f"{file.path} is not a whole safetensors file ({first_line(error)}); "
            "fetch or write it again"
        ) from error
    return entries, texts


def _header(file: MappedFile) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(file.read(0, 8), "little")
    if file.size < 8 or length > file.size - 8:
        raise ValueError(f"its header should have {length} bytes, the file has {file.size}")
    if length > MAX_HEADER:
        raise ValueError(f"its header has {length} bytes; {MAX_HEADER} are allowed")
    text = file.read(8, length)
    if not text.startswith(b"{"):
        raise ValueError("its header is no JSON object")
    header: dict[str, Any] = parse_json(text)
    return header, 8 + length


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError("its __metadata__ must be an object of texts")
    return value


def _entry(key: str, value: object, file: MappedFile, start: int) -> Entry:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{key[:80]!r} must have dtype, shape and data_offsets, and nothing else")
    dtype = DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        raise ValueError(f"{key[:80]!r} is of the unknown type {str(value['dtype'])[:20]!r}")
    shape, offsets = value["shape"], value["data_offsets"]
    if not _are_sizes(shape) or len(shape) > _MAX_AXES:
        raise ValueError(f"{key[:80]!r} has the impossible shape {str(shape)[:80]}")
    if not _are_sizes(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1]:
        raise ValueError(f"{key[:80]!r} has the impossible data_offsets {str(offsets)[:80]}")
    size = dtype.itemsize
    for length in shape:
        size *= length or 1  # so that an empty tensor's other axes have to make sense too
    if size >= 2**63:
        raise ValueError(f"{key[:80]!r} has the impossible shape {str(shape)[:80]}")
    if (size if 0 not in shape else 0) != offsets[1] - offsets[0]:
        raise ValueError(f"{key[:80]!r} does not have the size that its shape and type give")
    return Entry(file=file, dtype=dtype, shape=tuple(shape), offset=start + offsets[0])


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _require_no_gap(entries: Iterable[tuple[str, Entry]], start: int, end: int) -> None:
    places = sorted((e.offset, e.offset + _num_bytes(e), key) for key, e in entries)
    for first, last, key in places:
        if first != start:
            raise ValueError(
                f"{key[:80]!r} {'overlaps another' if first < start else 'leaves a hole'}"
            )
        start = last
    if start != end:
        raise ValueError(f"its tensors end at byte {start}, the file at {end}")


def _num_bytes(entry: Entry) -> int:
    return int(torch.Size(entry.shape).numel()) * entry.dtype.itemsize
