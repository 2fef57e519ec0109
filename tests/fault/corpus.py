"""Hostile and broken files, each written by a small function that says what is wrong with it."""

import io
import json
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Write = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Hostile:
    """A way to write a file, under which suffix, and what the error must say."""

    write: Write
    suffix: str
    says: str

    def at(self, folder: Path) -> Path:
        path = folder / f"{self.write.__name__}{self.suffix}"
        path.write_bytes(self.write())
        return path


def names(cases: Sequence[Hostile]) -> list[str]:
    return [case.write.__name__ for case in cases]


def adding_to(cases: list[Hostile]) -> Callable[[str, str], Callable[[Write], Write]]:
    """Return a decorator of (suffix, what the error says) that adds a function to `cases`."""

    def hostile(suffix: str, says: str) -> Callable[[Write], Write]:
        def add(write: Write) -> Write:
            cases.append(Hostile(write, suffix, says))
            return write

        return add

    return hostile


def safetensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def one(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


def good_safetensors() -> bytes:
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]},
    }
    return safetensors(header, bytes(22))


def archive(data: bytes, *, storages: dict[str, bytes] | None = None, **more: bytes) -> bytes:
    files = {"data.pkl": data, "byteorder": b"little", **more}
    files |= {f"data/{key}": value for key, value in (storages or {}).items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archived:
        for name, value in files.items():
            archived.writestr(f"archive/{name}", value)
    return buffer.getvalue()


def saved(value: Any, *, new: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


def good_value() -> dict[str, Any]:
    weight = torch.arange(6.0).reshape(2, 3)
    return {
        "epoch": 3,
        "state_dict": {"a": weight, "b": weight.T, "c": torch.nn.Parameter(weight[1].bfloat16())},
        "log": [1, (2.5, None, True), {"text": "é", 320: b"\xff"}],
    }


def good_zip() -> bytes:
    return saved(good_value(), new=True)


def good_legacy() -> bytes:
    return saved(good_value(), new=False)


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any] | type, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    return b"\x8a\x10" + value.to_bytes(16, "little", signed=True)


def ints(*values: int) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def storage(key: str = "0", numel: int = 4, kind: bytes = b"ctorch\nFloatStorage\n") -> bytes:
    return b"(" + text("storage") + kind + text(key) + text("cpu") + integer(numel) + b"tQ"


def tensor(
    offset: int = 0, shape: bytes = ints(4), strides: bytes = ints(1), of: bytes = storage()
) -> bytes:
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return call + of + integer(offset) + shape + strides + hooks + b"tR"


def holding(value: bytes, number: int = 1) -> bytes:
    """An archive of the dict {"a": value} and a storage of four floats."""
    data = b"\x80\x02}" + (text("a") + value + b"s") * number + b"."
    return archive(data, storages={"0": bytes(16)})


def good_by_hand() -> bytes:
    return holding(tensor())
