"""Toy runs by several processes that speak gloo, as torchrun starts them."""

import json
import multiprocessing
import os
import resource
import signal
import socket
import traceback
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import Recorder, ToyTask, UNetToy, config, in_one_part

from sd_checkpoint import Checkpoint, CheckpointError
from sd_train import Batch, DenoiserTrainConfig, TrainError, run, train
from sd_train.state import list_checkpoints

PROCESSES = multiprocessing.get_context("forkserver")
# Forked from a process without threads that has imported all, what the first optimizer step and
# the first save in parts import too: to start and kill one costs a third of a second.
PROCESSES.set_forkserver_preload(
    [
        "sd_train.trainer",
        "torch._dynamo",
        "torch.nn.utils",
        "torch.distributed.checkpoint",
        "torch.distributed.fsdp",
    ]
)
SPEED = "train/images_per_second"
TOLD = "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"


class Stopping(ToyTask):
    """Raises SIGINT within a step, counted from 1; never with 0."""

    def __init__(self, stop_at: int) -> None:
        super().__init__()
        self.stop_at = stop_at

    def loss(self, batch: Batch, generator: torch.Generator) -> Any:
        if self.calls + 1 == self.stop_at:
            signal.raise_signal(signal.SIGINT)
        return super().loss(batch, generator)


def free_port() -> int:
    """Find a port at which processes may meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def be_one_of(count: int, rank: int, port: int) -> None:
    """Be told what torchrun tells each of several processes."""
    torch.set_num_threads(1)
    values = (rank, rank, count, "127.0.0.1", port)
    os.environ.update({name: str(value) for name, value in zip(TOLD, values, strict=True)})


def group(task: ToyTask) -> None:
    """Let no batch have examples of two of three groups, one of which is smaller than a batch."""
    task.source.groups = [[*range(13)], [*range(13, 20)], [*range(20, 23)]]


def member(
    rank: int,
    count: int,
    port: int,
    folder: Path,
    stop_at: dict[int, int],
    settings: dict[str, Any],
    told: "SimpleQueue[Any]",
) -> None:
    """Train as one of several processes; `stop_at` has the batch at which one gets a SIGINT.

    With the setting `grouped` batches are of groups, with `unet` a UNet learns, with `layers`
    false nothing can be shared out, with `file_limit` files of one of them cannot be larger.
    """
    be_one_of(count, rank, port)
    limit, whose = settings.pop("file_limit", (0, None))
    if rank == whose:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    heard = Recorder()
    task = UNetToy() if settings.pop("unet", False) else Stopping(stop_at.get(rank, 0))
    if settings.pop("grouped", False):
        group(task)
    if not settings.pop("layers", True):
        task.layers = []
    resume = bool(list_checkpoints(folder))
    try:
        result = train(task, config(**settings), folder, heard, resume=resume)
        told.put((rank, result.status, result.step, result.signal, len(heard.steps)))
    except (TrainError, CheckpointError) as error:
        told.put((rank, "error", str(error)))
    except BaseException:
        told.put((rank, "crash", traceback.format_exc()))


def start(
    count: int, folder: Path, stop_at: dict[int, int] | None = None, **settings: Any
) -> "tuple[list[Any], SimpleQueue[Any]]":
    """Start the processes of a run; what each tells at its end is in the queue."""
    port = free_port()
    told = PROCESSES.SimpleQueue()
    members = [
        PROCESSES.Process(
            target=member, args=(rank, count, port, folder, stop_at or {}, settings, told)
        )
        for rank in range(count)
    ]
    for process in members:
        process.start()
    return members, told


def together(
    count: int, folder: Path, stop_at: dict[int, int] | None = None, **settings: Any
) -> list[Any]:
    """Train by `count` processes; return what each of them tells at its end, the first first."""
    members, told = start(count, folder, stop_at, **settings)
    ends = sorted(told.get() for _ in members)
    for process in members:
        process.join()
    return ends


def run_together(count: int, settings: DenoiserTrainConfig, folder: Path) -> None:
    """Do a run of `train` by `count` processes."""
    port = free_port()
    members = [
        PROCESSES.Process(target=run_as_one, args=(rank, count, port, settings, folder))
        for rank in range(count)
    ]
    for process in members:
        process.start()
    for process in members:
        process.join()
    assert all(process.exitcode == 0 for process in members)


def run_as_one(
    rank: int, count: int, port: int, settings: DenoiserTrainConfig, folder: Path
) -> None:
    """Do a run of `train` as one of several processes."""
    be_one_of(count, rank, port)
    run(settings, folder)


def scalars(folder: Path) -> list[dict[str, float]]:
    """Read what a run has logged, all but how long it took."""
    lines = [json.loads(line) for line in (folder / "scalars.jsonl").open()]
    return [
        {name: value for name, value in line.items() if name not in ("time", SPEED)}
        for line in lines
    ]


def assert_alike(left: Path, right: Path) -> None:
    """Compare two runs to rounding: other orders of the same sums."""
    for ours, theirs in zip(scalars(left), scalars(right), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    last = [
        in_one_part(list_checkpoints(folder)[-1], folder / "in-one-part")
        for folder in (left, right)
    ]
    for name in ("weights", "ema", "optimizer"):
        one, other = (Checkpoint.open(folder / f"{name}.safetensors") for folder in last)
        assert one.keys() == other.keys()
        for key in one:
            assert torch.allclose(one[key], other[key], atol=1e-5, rtol=1e-4), f"{name}: {key}"
