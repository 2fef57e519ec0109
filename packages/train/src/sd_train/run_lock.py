"""One trainer a run folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sd_train.errors import TrainError
from sd_train.processes import is_first

_NAME = ".lock"


@contextmanager
def only_trainer(run_folder: Path) -> Iterator[None]:
    """Hold a run folder, which is made if need be; a process that ends, however, lets go of it.

    May be entered again by the same process; of several that train one run the first holds it.
    Raises TrainError where another one holds it, or it cannot be written to.
    """
    if not is_first():
        yield
        return
    lock = FileLock(run_folder / _NAME, timeout=0, is_singleton=True)
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise TrainError(
            f"another process trains in {run_folder}; wait for it, or choose another folder"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise TrainError(f"cannot train in {run_folder}: {reason}; choose another place") from error
    try:
        yield
    finally:
        lock.release()
