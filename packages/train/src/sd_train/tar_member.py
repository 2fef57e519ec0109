"""A file within a tar file, read where it lies."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TarMember:
    """`size` bytes of a shard from `offset` on; `name` says what they are called and no more.

    No file is ever written under that name, so it may be whatever it pleases.
    """

    shard: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        """Return the shard's path and the name within it."""
        return f"{self.shard}:{self.name}"

    @property
    def file_name(self) -> str:
        """The name without its folders."""
        return self.name.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """What the name has from its last dot on, "" where it has none."""
        name = self.file_name
        return name[name.rfind(".") :] if "." in name else ""

    @property
    def base(self) -> str:
        """The name with its folders and without its suffix: the same for all files of a sample."""
        return self.name.removesuffix(self.suffix)

    def read_bytes(self) -> bytes:
        """Read it whole; raises OSError where the shard cannot be read or ends before it does."""
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise OSError(f"{self.shard} is shorter than it was")
        return content
