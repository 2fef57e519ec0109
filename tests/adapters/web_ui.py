"""Stands for the web UI's guard on pickles: what it lets through, it opens."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

_ALLOWED = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "FloatStorage"),
    ("torch", "HalfStorage"),
    ("torch", "BFloat16Storage"),
    ("torch", "LongStorage"),
    ("torch", "IntStorage"),
}
_OBJECTS = 5  # magic number, protocol, system, the content, the storages' keys


class _Refusing(pickle.Unpickler):
    def persistent_load(self, saved_id: Any) -> object:
        assert saved_id[0] == "storage"
        return object()

    def find_class(self, module: str, name: str) -> Any:
        assert (module, name) in _ALLOWED, f"{module}.{name} is refused by the web UI"
        return lambda *_args: {}


def assert_web_ui_opens(path: Path) -> None:
    """A file of the older form: in a zip it refuses names that newer versions of torch write."""
    assert not zipfile.is_zipfile(path)
    with path.open("rb") as file:
        unpickler = _Refusing(file)
        for _ in range(_OBJECTS):
            unpickler.load()
