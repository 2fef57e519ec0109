"""Toy runs by several processes that speak gloo, as torchrun starts them."""

import multiprocessing
import os
import signal
import socket
import traceback
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch
from toy import Recorder, ToyTask, config

from sd_train import Batch, TrainError, train
from sd_train.state import list_checkpoints

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["sd_train.trainer", "torch._dynamo", "torch.nn.utils"])
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

    With the setting `grouped` batches are of groups.
    """
    torch.set_num_threads(1)
    values = (rank, rank, count, "127.0.0.1", port)
    os.environ.update({name: str(value) for name, value in zip(TOLD, values, strict=True)})
    task, heard = Stopping(stop_at.get(rank, 0)), Recorder()
    if settings.pop("grouped", False):
        group(task)
    resume = bool(list_checkpoints(folder))
    try:
        result = train(task, config(**settings), folder, heard, resume=resume)
        told.put((rank, result.status, result.step, result.signal, len(heard.steps)))
    except TrainError as error:
        told.put((rank, "error", str(error)))
    except BaseException:
        told.put((rank, "crash", traceback.format_exc()))


def start(
    count: int, folder: Path, stop_at: dict[int, int] | None = None, **settings: Any
) -> "tuple[list[Any], SimpleQueue[Any]]":
    """Start the processes of a run; what each tells at its end is in the queue."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
