"""Reading and writing safetensors and JSON files."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sd_checkpoint.atomic import atomic_path
from sd_checkpoint.errors import CheckpointError, name_keys

__all__ = ["Checkpoint", "load_json", "save_json", "save_safetensors"]


class Checkpoint(Mapping[str, Tensor]):
    """Read the tensors of a safetensors file one by one, when they are asked for."""

    def __init__(self, path: Path, handle: Any, names: Mapping[str, str]) -> None:
        self.path = path
        self._handle = handle
        self._names = names  # the key shown -> the key in the file

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Checkpoint":
        """Open `path`, reading its header only; raises `CheckpointError` when it is not whole."""
        path = Path(path)
        _require_file(path)
        try:
            handle: Any = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise _broken(path, error) from error
        return cls(path, handle, {name: name for name in list(handle.keys())})

    @property
    def metadata(self) -> dict[str, str]:
        """The header's text entries."""
        return dict(self._handle.metadata() or {})

    def under(self, prefix: str) -> "Checkpoint":
        """View the keys that begin with `prefix` ("first_stage_model."), without it.

        Raises `CheckpointError` when there are none.
        """
        names = {k.removeprefix(prefix): v for k, v in self._names.items() if k.startswith(prefix)}
        if not names:
            raise CheckpointError(
                f"{self.path} has no keys under {prefix!r}; it holds {name_keys(self._names)}"
            )
        return Checkpoint(self.path, self._handle, names)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return every tensor's shape without reading the tensors."""
        return {
            key: tuple(self._handle.get_slice(name).get_shape())
            for key, name in self._names.items()
        }

    def __getitem__(self, key: str) -> Tensor:
        name = self._names[key]
        try:
            return cast(Tensor, self._handle.get_tensor(name))
        except (SafetensorError, OSError) as error:
            raise _broken(self.path, error) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def save_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write `tensors` to `path` whole or not at all, contiguous, with text `metadata`.

    Tensors that share memory are written out each. The header says `format: pt`, which readers of
    the field look for. Raises `CheckpointError` when the place cannot be written to.
    """
    header = {"format": "pt", **(metadata or {})}
    with atomic_path(path) as temporary:
        try:
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(_unshared(tensors), temporary, metadata=header)
            temporary.chmod(mode)  # safetensors makes files that their owner alone can read
        except (SafetensorError, OSError) as error:
            raise _cannot_write(path, error) from error


def save_json(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Write `value` to `path` as indented JSON, whole or not at all."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with atomic_path(path) as temporary:
        try:
            temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise _cannot_write(path, error) from error


def load_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the JSON object in `path`; raises `CheckpointError` when it is missing or broken."""
    path = Path(path)
    _require_file(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({_first_line(error)})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object")
    return value


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make every tensor contiguous and the sole owner of its memory, as the format wants."""
    seen: set[int] = set()
    owned = {}
    for key, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        address = own.untyped_storage().data_ptr()
        owned[key] = own.clone() if address in seen else own
        seen.add(address)
    return owned


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, not a file; name a file in it")
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; check the path")


def _broken(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a whole safetensors file ({_first_line(error)}); fetch or write it again"
    )


def _cannot_write(path: str | os.PathLike[str], error: Exception) -> CheckpointError:
    return CheckpointError(f"cannot write {os.fspath(path)}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
