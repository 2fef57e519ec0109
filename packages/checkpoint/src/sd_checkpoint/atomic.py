"""Writing a file or a folder whole or not at all."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sd_checkpoint.errors import CheckpointError

__all__ = ["atomic_path"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place when the block succeeds.

    Write a file there, or make a folder there and fill it. Everything is synced to the disk before
    the rename, and removed when the block raises. The temporary name ends like the target's, so
    writers that go by the suffix work. A reader sees the old file or the new one, never a part; a
    folder that is replaced is absent for an instant between two renames.
    Raises `CheckpointError` when the place cannot be written to, or is full.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".tmp-{secrets.token_hex(4)}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(target, error) from error
    try:
        yield temporary
        assert temporary.exists(), f"nothing was written to {temporary}"
        try:
            _move_into_place(temporary, target)
        except OSError as error:
            raise _cannot_write(target, error) from error
    except OSError as error:
        if error.errno in _FULL:
            raise _cannot_write(target, error) from error
        raise
    finally:
        _remove(temporary)


def _cannot_write(target: Path, error: OSError) -> CheckpointError:
    reason = error.strerror or str(error)
    return CheckpointError(f"cannot write {target}: {reason}; choose another place")


def _move_into_place(temporary: Path, target: Path) -> None:
    _sync_tree(temporary)
    if target.is_dir() and temporary.is_dir():
        old = target.with_name(f".old-{temporary.name}")
        target.rename(old)
        try:
            temporary.rename(target)
        except OSError:
            old.rename(target)
            raise
        _remove(old)
    else:
        temporary.replace(target)
    _sync(target.parent)


def _sync_tree(path: Path) -> None:
    if path.is_dir():
        for child in path.iterdir():
            _sync_tree(child)
    _sync(path)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folder for syncing
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
