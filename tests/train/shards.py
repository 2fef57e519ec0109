"""Shards to learn from, and tar files that no kind program would write."""

import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

BLOCK = 512


def write_shard(path: Path, files: Iterable[tuple[str, bytes]], **options: int) -> Path:
    """Write plain files of a name and bytes into a tar file, in their order."""
    with tarfile.open(path, "w", **options) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    return path


def files_of(folder: Path) -> list[tuple[str, bytes]]:
    """Return the files of a folder by name, with their bytes."""
    return [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    """Return the header of a member, whatever its size is said to be."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = max(size, 0), kind, target
    block = info.tobuf(tarfile.GNU_FORMAT)
    if size >= 0:
        return block
    # In base 256, as GNU has sizes that octal digits are too few for.
    field = b"\xff" + (256**11 + size).to_bytes(11, "big")
    plain = block[:124] + field + block[136:148] + b" " * 8 + block[156:]
    return plain[:148] + f"{sum(plain):06o}\0 ".encode() + plain[156:]
