"""What a run would cost, found out by a few of its steps: time, memory and disk."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from sd_train.cache import ToEncode
from sd_train.compiling import compile_blocks, with_room_for_variants
from sd_train.config import TrainerConfig
from sd_train.errors import TrainError
from sd_train.reporter import SilentReporter
from sd_train.state import TrainState
from sd_train.stream import BatchStream
from sd_train.task import Task
from sd_train.trainer import Trainer

_NUM_STEPS = 3  # the first one is slow: memory is taken, kernels are chosen
_CONTAINER_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
_TIGHT = 0.9  # of the memory: what else needs some is not counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsal:
    """Seconds a step and for all of them, and bytes.

    `encoding_seconds` is what frozen encoders still need for the data before the first step.
    `peak_memory` is the most that was held at once, of `memory`: the GPU's, or the process' of the
    machine's. `disk` is what the run needs of `free_disk`: for checkpoints while one is written,
    and for what the encoders will have said.
    """

    num_parameters: int
    seconds_per_step: float
    seconds: float
    encoding_seconds: float
    peak_memory: int
    memory: int
    disk: int
    free_disk: int

    @property
    def warnings(self) -> tuple[str, ...]:
        """What will not go well, a line each."""
        lines = []
        if self.peak_memory > _TIGHT * self.memory:
            lines.append(
                f"memory is tight: {_told(self.peak_memory)} of {_told(self.memory)}; lower "
                "trainer.batch_size and raise trainer.accumulate"
            )
        if self.disk > self.free_disk:
            lines.append(
                f"the disk is too small: {_told(self.disk)} of checkpoints and caches, "
                f"{_told(self.free_disk)} free; lower trainer.keep_last or choose another folder"
            )
        return tuple(lines)

    def lines(self) -> Iterator[str]:
        """Say it all, a line each, the warnings last."""
        yield f"{self.num_parameters:,} parameters learn"
        if self.encoding_seconds:
            yield f"{_took(self.encoding_seconds)} of encoding pictures and captions come first"
        yield (
            f"{self.seconds_per_step:.2f} s a step, {_took(self.seconds)} in all, "
            "beside validations"
        )
        yield f"{_told(self.peak_memory)} of {_told(self.memory)} memory at most"
        yield f"{_told(self.disk)} of {_told(self.free_disk)} free disk for checkpoints and caches"
        yield from (f"warning: {line}" for line in self.warnings)


def rehearse(
    task: Task, config: TrainerConfig, run_folder: Path, to_encode: ToEncode | None = None
) -> Rehearsal:
    """Do a few real steps at full size and write nothing; the task's modules are not as before.

    `to_encode` is what `first_for_all` counted. Raises TrainError where memory does not suffice,
    and what a step raises.
    """
    with torch.random.fork_rng():
        state = TrainState.of(task, config)
        # At the end of the run, for an opponent may not be there from the start.
        state.step = max(0, config.steps - _NUM_STEPS)
        trainer = Trainer(task, config, run_folder, SilentReporter(), state)
        if state.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(state.device)
        for learners in state.everybody:
            for module in learners.modules.values():
                module.train()
        stream = BatchStream(
            task.source,
            batch_size=config.batch_size,
            seed=config.seed,
            position=0,
            num_workers=config.num_workers,
        )
        if config.compile:
            compile_blocks(task)
        try:
            with with_room_for_variants(config.compile):
                seconds = min([_timed(trainer, stream) for _ in range(_NUM_STEPS)][1:])
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_of_memory(error):
                raise
            raise TrainError(
                f"a step with trainer.batch_size {config.batch_size} needs more memory than the "
                f"{_told(_memory(state.device)[1])} there are; lower it and raise "
                "trainer.accumulate, or lower data.size"
            ) from error
        finally:
            stream.close()
    peak, memory = _memory(state.device)
    to_encode = to_encode or ToEncode()
    checkpoints = state.num_bytes() * (config.keep_last + 1 + bool(config.best_by))
    return Rehearsal(
        num_parameters=sum(p.numel() for each in state.everybody for p in each.parameters),
        seconds_per_step=seconds,
        seconds=seconds * config.steps,
        encoding_seconds=to_encode.seconds,
        peak_memory=peak,
        memory=memory,
        disk=checkpoints + to_encode.num_bytes,
        free_disk=shutil.disk_usage(_existing(run_folder)).free,
    )


def _timed(trainer: Trainer, stream: BatchStream) -> float:
    began = time.perf_counter()
    trainer.step(stream)
    if trainer.state.device.type == "cuda":
        torch.cuda.synchronize(trainer.state.device)
    return time.perf_counter() - began


def _memory(device: torch.device) -> tuple[int, int]:
    """Return the most bytes that were held at once, and how many there are."""
    if device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        return torch.cuda.max_memory_allocated(device), whole
    import resource  # not on every system

    # In KiB, but on a Mac in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return held, min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_allowed())


def _allowed() -> Iterator[int]:
    """Yield how many bytes a container allows, where there is one."""
    for path in _CONTAINER_LIMITS:
        try:
            told = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if told.isdigit():  # else "max"
            yield int(told)


def _is_of_memory(error: BaseException) -> bool:
    # On a CPU torch says so in a plain RuntimeError.
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "can't allocate memory" in str(error)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.resolve().parents) if path.exists())


def _took(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min"


def _told(num_bytes: int) -> str:
    if num_bytes < 1e9:
        return f"{num_bytes / 1e6:.0f} MB"
    return f"{num_bytes / 1e9:.1f} GB"
