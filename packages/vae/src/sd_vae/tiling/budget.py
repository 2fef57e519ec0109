"""How much memory a large picture may take, and where the rest of it goes."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from sd_vae.config import VAEError

__all__ = ["MemoryBudget"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryBudget:
    """Say in bytes what a picture may take besides the weights, the input and the result.

    `memory` is of the weights' device: one half for activations that fit there whole, the other
    for the bands at work. `host_memory` is of the CPU, for activations of weights on another
    device. An activation that fits in neither goes to an unnamed temporary file in `folder`, or in
    the system's own place. Raises `VAEError` for a size or a folder that cannot be.
    """

    memory: int = 768 * 2**20
    host_memory: int = 4 * 2**30
    folder: Path | None = None

    def __post_init__(self) -> None:
        for name, least in (("memory", 1), ("host_memory", 0)):
            value = getattr(self, name)
            if value < least:
                raise VAEError(f"{name} of {value} bytes is too small; give at least {least}")
        if self.folder is not None and not self.folder.is_dir():
            raise VAEError(f"no folder {self.folder} for temporary files; choose one that exists")

    @property
    def bands(self) -> int:
        """Bytes for the bands at work."""
        return self.memory - self.memory // 2

    @property
    def temporary_folder(self) -> Path:
        """The folder of the temporary files."""
        return self.folder or Path(tempfile.gettempdir())
