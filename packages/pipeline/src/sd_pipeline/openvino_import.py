"""OpenVINO where it is installed, kept from telling anybody that it is used."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from sd_pipeline.errors import PipelineError

_NAME, _TELEMETRY = "openvino", "openvino_telemetry"


def load_openvino() -> ModuleType:
    """Import OpenVINO, which is an extra, and never its telemetry.

    Its own `__init__` sends an event over the network where the package openvino_telemetry is
    there, which pip installs beside it. While it is imported that package cannot be found, and
    OpenVINO takes a stub of its own for good. Raises `PipelineError` where it cannot be imported.
    """
    with _hidden(_TELEMETRY):
        try:
            return importlib.import_module(_NAME)
        except ModuleNotFoundError as error:
            raise PipelineError(
                "OpenVINO is not installed: `pip install 'sd-pipeline[openvino]'`, or leave the "
                "engine at torch"
            ) from error
        except (ImportError, OSError) as error:
            raise PipelineError(
                f"OpenVINO's import fails ({str(error).splitlines()[0]}): install it anew, or "
                "leave the engine at torch"
            ) from error


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Let the import of a package fail as if it were not there."""
    before = sys.modules.get(name)
    # None there is what the import system takes for a module that must not be found.
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
