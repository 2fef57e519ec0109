"""Toy runs in processes of their own, to be killed."""

import multiprocessing
import resource
import time
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


def go_on(folder: Path, seconds_in_save: float = 0.0, file_limit: int = 0) -> TrainResult:
    """Train in a folder, from its latest checkpoint if there is one."""
    torch.set_num_threads(1)
    if seconds_in_save:
        write = state.write_manifest

        def slow(place: Path) -> None:
            time.sleep(seconds_in_save)
            write(place)

        state.write_manifest = slow
    if file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
    return train(ToyTask(), config(**SETTINGS), folder, resume=bool(list_checkpoints(folder)))


def killed(folder: Path, after: float, seconds_in_save: float = 0.0) -> None:
    """Train in a process that is killed after some seconds."""
    process = PROCESSES.Process(target=go_on, args=(folder, seconds_in_save))
    process.start()
    process.join(after)
    process.kill()
    process.join()
