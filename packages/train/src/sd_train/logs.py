"""What a run leaves to look at: TensorBoard scalars and images, a line file, sample pictures."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from sd_checkpoint import atomic_path
from sd_train.errors import TrainError
from sd_train.images import save_png


class RunLog:
    """Write scalars to `scalars.jsonl` and TensorBoard, pictures to `samples/` and TensorBoard.

    A resumed run appends; lines of steps beyond the checkpoint it goes on from are dropped.
    """

    def __init__(self, run_folder: Path, *, step: int, tensorboard: bool) -> None:
        self._samples = run_folder / "samples"
        self._path = run_folder / "scalars.jsonl"
        self._writer: Any = None
        with self._writing():
            _drop_lines_after(self._path, step)
            if tensorboard:
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(run_folder / "tensorboard"), purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars by name ("train/loss")."""
        line = json.dumps({"step": step, "time": round(time.time(), 1), **values})
        with self._writing():
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            if self._writer is not None:
                for name, value in values.items():
                    self._writer.add_scalar(name, value, step)

    def images(self, step: int, images: Mapping[str, Tensor]) -> None:
        """Write uint8 pictures (3, H, W) by name."""
        with self._writing():
            for name, image in images.items():
                save_png(self._samples / f"step-{step:08d}-{name}.png", image)
                if self._writer is not None:
                    self._writer.add_image(f"validation/{name}", image.numpy(), step)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise TrainError(
                f"cannot write the logs in {self._path.parent}: {reason}; resume the run when that "
                "is mended"
            ) from error

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()


def _drop_lines_after(path: Path, step: int) -> None:
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and _step_of(line) <= step]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def _step_of(line: str) -> float:
    """Return the step of a line, infinity of one that a crash has spoilt."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf
