"""Toy runs in processes of their own, to be killed."""

import multiprocessing
import resource
import time
from itertools import count
from multiprocessing.synchronize import Event
from pathlib import Path

import torch
from toy import ToyTask, config

from sd_train import TrainResult, state, train
from sd_train.state import list_checkpoints

STEPS = 1500
SETTINGS = {"steps": STEPS, "save_every": 3, "validate_every": 0, "log_every": 50}
# Forked from a process without threads that has imported all, what the first optimizer step imports
# too: a kill costs a third of a second.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["sd_train.trainer", "torch._dynamo", "torch.nn.utils"])


def go_on(folder: Path, file_limit: int = 0) -> TrainResult:
    """Train in a folder, from its latest checkpoint if there is one."""
    torch.set_num_threads(1)
    if file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
    return train(ToyTask(), config(**SETTINGS), folder, resume=bool(list_checkpoints(folder)))


def saving(folder: Path, inside: Event, save: int, *, stays: bool) -> None:
    """Train, and tell when the save of that number is half done; there it may stay."""
    write, saves = state.write_manifest, count(1)

    def told(place: Path) -> None:
        if next(saves) == save:
            inside.set()
            while stays:
                time.sleep(60)
        write(place)

    state.write_manifest = told
    go_on(folder)


def killed(folder: Path, after: float) -> None:
    """Train in a process that is killed after some seconds."""
    process = PROCESSES.Process(target=go_on, args=(folder,))
    process.start()
    process.join(after)
    process.kill()
    process.join()


def killed_saving(folder: Path, save: int, after: float | None = None) -> None:
    """Train in a process that is killed inside its save of that number, or some seconds later.

    On a machine of any speed: the process tells when it is there.
    """
    inside = PROCESSES.Event()
    process = PROCESSES.Process(
        target=saving, args=(folder, inside, save), kwargs={"stays": after is None}
    )
    process.start()
    assert inside.wait(60), "the process came to its save"
    process.join(after or 0)
    process.kill()
    process.join()
