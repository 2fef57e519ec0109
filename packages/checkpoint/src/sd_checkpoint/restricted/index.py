"""What a file of `torch.save` holds, as plain JSON values."""

import base64
import math
import os
import struct
from typing import Any

from .archive import ReadAt, read_directory
from .machine import Machine
from .values import ITEMSIZE, Named, NumpyType, RefusedError, Storage, TensorSpec

__all__ = ["MAX_PICKLE", "make_index"]

MAX_PICKLE = 64 * 2**20  # bytes, of the structure alone: the numbers lie outside it
_MAX_DEPTH = 64
_MAX_NODES = 250_000
_MAX_TEXT = 16 * 2**20
_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001


def make_index(descriptor: int) -> dict[str, Any]:
    """Return the index of the open file: its tensors, its storages, and its containers.

    `tensors` are (dtype, shape, strides, storage, offset in elements) and `storages` map a key to
    (first byte, length). `tree` holds texts, numbers, booleans and None as they are and all else as
    a list of a mark and a value: "list" and "tuple" hold nodes, "dict" pairs of nodes, "tensor" an
    index into `tensors`, "bytes" base64, "float" one of nan, inf and -inf.
    Raises `RefusedError` when the file is damaged or asks for anything but tensors and containers.
    """
    size = os.lseek(descriptor, 0, os.SEEK_END)

    def read(offset: int, length: int) -> bytes:
        length = max(0, min(length, size - offset))
        if hasattr(os, "pread"):
            return os.pread(descriptor, length, offset)
        os.lseek(descriptor, offset, os.SEEK_SET)  # Windows has no pread
        return os.read(descriptor, length)

    is_zip = read(0, 2) == b"PK"
    value, storages = (_read_zip if is_zip else _read_legacy)(read, size)
    tree = _Tree()
    node = tree.node(value, 0)
    used = {row[3] for row in tree.tensors}
    return {
        "tree": node,
        "tensors": tree.tensors,
        "storages": {key: place for key, place in storages.items() if key in used},
    }


def _read_zip(read: ReadAt, size: int) -> tuple[Any, dict[str, tuple[int, int]]]:
    places = read_directory(read, size)
    roots = [name[: -len("data.pkl")] for name in places if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise RefusedError(f"it holds {len(roots)} data.pkl, where torch.save writes one")
    root = roots[0]
    if f"{root}constants.pkl" in places:
        raise RefusedError("it is a TorchScript program, which is code, not weights")
    if f"{root}byteorder" in places and read(*places[f"{root}byteorder"]) != b"little":
        raise RefusedError("it was written by a big-endian machine")
    offset, length = places[f"{root}data.pkl"]
    if length > MAX_PICKLE:
        raise RefusedError(f"its data.pkl has {length} bytes; {MAX_PICKLE} are allowed")
    machine = Machine(read(offset, length))
    value = machine.run()
    storages = {}
    for key, storage in machine.storages.items():
        place = places.get(f"{root}data/{key}")
        if place is None or place.length != storage.num_bytes:
            raise RefusedError(f"the storage {key[:80]!r} is not there or has another size")
        storages[key] = (place.offset, place.length)
    return value, storages


def _read_legacy(read: ReadAt, size: int) -> tuple[Any, dict[str, tuple[int, int]]]:
    """Read magic number, version, system, the value, the storages' keys, the storages."""
    data = read(0, MAX_PICKLE)
    at = 0
    values = []
    machine = Machine(data)
    for _ in range(5):
        machine = Machine(data, at)
        values.append((machine.run(), machine.storages))
        at = machine.at
        if values[0][0] != _MAGIC:
            raise RefusedError("it is a pickle, but none that torch.save wrote")
    (_, _), (version, _), (system, _), (value, known), (keys, _) = values
    if version != _VERSION or not isinstance(system, dict) or type(keys) is not list:
        raise RefusedError(f"torch.save wrote it in a version that is not {_VERSION}")
    if system.get("little_endian") is not True:
        raise RefusedError("it was written by a big-endian machine")
    storages: dict[str, tuple[int, int]] = {}
    for key in keys:
        storage = known.get(key) if type(key) is str else None
        if storage is None or key in storages:
            raise RefusedError("it lists a storage that no tensor lies in, or one twice")
        storages[key] = (at + 8, storage.num_bytes)
        _require_length(read(at, 8), storage)
        at += 8 + storage.num_bytes
    if at > size or storages.keys() != known.keys():
        raise RefusedError(f"its storages end at byte {at}, the file at {size}")
    return value, storages


def _require_length(data: bytes, storage: Storage) -> None:
    if struct.pack("<q", storage.num_bytes // ITEMSIZE[storage.dtype]) != data:
        raise RefusedError(f"the storage {storage.key[:80]!r} is not there or has another size")


class _Tree:
    """Turns what a pickle holds into JSON, as far as it is not too much.

    One container may stand in many places, and be counted in each; without a limit a short file
    could describe more nodes than there are atoms.
    """

    def __init__(self) -> None:
        self.tensors: list[tuple[Any, ...]] = []
        self.num_nodes = self.num_text = 0

    def node(self, value: Any, depth: int) -> Any:
        """Return the node for `value`; raises `RefusedError` when there is too much."""
        self.num_nodes += 1
        if self.num_nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise RefusedError("its containers are nested too deeply or hold too much")
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, str | bytes | Named):
            return self._text(value)
        if isinstance(value, float):
            return value if math.isfinite(value) else ["float", str(value)]
        if isinstance(value, list | tuple):
            kind = "list" if isinstance(value, list) else "tuple"
            return [kind, [self.node(item, depth + 1) for item in value]]
        if isinstance(value, dict):
            pairs = value.items()
            return ["dict", [[self.node(k, depth + 1), self.node(v, depth + 1)] for k, v in pairs]]
        if isinstance(value, TensorSpec):
            return self._tensor(value)
        if isinstance(value, NumpyType):
            return value.code
        raise RefusedError(f"it holds a bare {type(value).__name__.lower()}, which is no tensor")

    def _text(self, value: str | bytes | Named) -> Any:
        text = value if isinstance(value, bytes) else str(value)
        self.num_text += len(text)
        if self.num_text > _MAX_TEXT:
            raise RefusedError("its texts are too long")
        if isinstance(text, bytes):
            return ["bytes", base64.b64encode(text).decode()]
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            raise RefusedError("it holds a text that is no Unicode")
        return text

    def _tensor(self, spec: TensorSpec) -> list[Any]:
        self.tensors.append((spec.dtype, spec.shape, spec.strides, spec.storage.key, spec.offset))
        return ["tensor", len(self.tensors) - 1]
