"""Toy runs in processes of their own that are killed, and what that costs them."""

import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import torch
from together import PROCESSES, be_one_of, free_port
from toy import ToyTask, config

from sd_train import SilentReporter, StepInfo, TrainResult, checkpoint_parts, state, train
from sd_train.manifest import damage_of
from sd_train.state import checkpoint_folder, list_checkpoints, step_of

PATIENCE = 120.0  # seconds, for a machine of any speed
TO_NOTICE = 20.0  # that one of the others is gone


@dataclass(frozen=True, kw_only=True, slots=True)
class ToyRun:
    """A run of the toy task, by some processes that share it by `parallel`."""

    folder: Path
    steps: int
    processes: int = 1
    parallel: str = "ddp"
    save_every: int = 3

    @property
    def saved(self) -> int:
        """The step of the newest checkpoint; 0 where there is none."""
        return max((step_of(one) for one in list_checkpoints(self.folder)), default=0)

    @property
    def last(self) -> Path:
        """The checkpoint that it has when it is finished."""
        return checkpoint_folder(self.folder, self.steps)

    @property
    def half_saved(self) -> list[Path]:
        """What saves that did not come to their end have left."""
        return list((self.folder / "checkpoints").glob(".*-step-*"))

    def go_on(self, file_limit: int = 0, reporter: SilentReporter | None = None) -> TrainResult:
        """Train in this process, from the latest checkpoint if there is one."""
        torch.set_num_threads(1)
        if file_limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
        settings = config(
            steps=self.steps,
            save_every=self.save_every,
            validate_every=0,
            log_every=50,
            parallel=self.parallel,
        )
        resume = bool(list_checkpoints(self.folder))
        return train(ToyTask(), settings, self.folder, reporter, resume=resume)

    def finish(self) -> None:
        """Train to the end by processes of their own."""
        members, _ = start(self, quiet=False)
        for process in members:
            process.join()
        assert all(process.exitcode == 0 for process in members)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """Where a process stays until it is killed: before a write of the first save from a step on.

    Or in it, half of it done, where it is `torn`.
    """

    rank: int
    step: int
    write: int
    torn: bool

    @classmethod
    def at_random(cls, run: ToyRun, step: int, random: Random) -> "Hold":
        """Choose the process that stays and which of its writes is not done."""
        rank = random.randrange(run.processes) if run.parallel == "fsdp" else 0
        in_parts = run.parallel == "fsdp" and run.processes > 1
        num_writes = (3 if rank == 0 else 1) if in_parts else 5
        write, torn = random.randrange(num_writes), random.random() < 1 / 2
        return cls(rank=rank, step=step, write=write, torn=torn)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """One kill: the step that the run had done, and that of its newest checkpoint then.

    `in_save` tells that a save was half done, `others_ended` that those who were not killed ended
    by themselves; None where all were killed.
    """

    reached: int
    saved: int
    saved_before: int
    in_save: bool
    others_ended: bool | None
    damage: str | None

    @property
    def lost(self) -> int:
        """How many steps have to be done again."""
        return self.reached - self.saved

    def faults(self, run: ToyRun) -> list[str]:
        """Say what of it should not be."""
        found = []
        if self.saved < self.saved_before:
            found.append(f"the checkpoint of step {self.saved_before} is gone")
        if self.lost > run.save_every:
            found.append(f"{self.lost} steps are lost, with a save every {run.save_every}")
        if self.damage is not None:
            found.append(f"a checkpoint is damaged: {self.damage}")
        return found


class Progress(SilentReporter):
    """Tells another process which step is done."""

    def __init__(self, done: Any) -> None:
        self.done = done

    def step(self, info: StepInfo) -> None:
        self.done.value = info.step


class Watch:
    """What the processes of a run let others see: the step that is done, whether one is held."""

    def __init__(self) -> None:
        # Without a lock, which a process that is killed might hold.
        self.done = PROCESSES.Value("q", 0, lock=False)
        self.held = PROCESSES.Event()


def start(run: ToyRun, hold: Hold | None = None, *, quiet: bool = True) -> tuple[list[Any], Watch]:
    """Start the processes of a run, and watch them; `quiet` ones do not say why they end."""
    watch, port = Watch(), free_port()
    members = [
        PROCESSES.Process(target=work, args=(run, rank, port, hold, watch, quiet))
        for rank in range(run.processes)
    ]
    for process in members:
        process.start()
    return members, watch


def work(run: ToyRun, rank: int, port: int, hold: Hold | None, watch: Watch, quiet: bool) -> None:
    """Train as one of the processes of a run."""
    if quiet:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    be_one_of(run.processes, rank, port)
    if hold is not None and hold.rank == rank:
        stay(hold, watch)
    run.go_on(reporter=Progress(watch.done))


def stay(hold: Hold, watch: Watch) -> None:
    """Stay at a write of a save until killed."""
    writes = count()

    def held(write: Callable[..., Any], place: Path, *rest: Any) -> Any:
        step = int(re.findall(r"step-(\d+)", str(place))[-1])
        if step >= hold.step and next(writes) == hold.write:
            if hold.torn and not place.is_dir():
                write(place, *rest)
                os.truncate(place, place.stat().st_size // 2)
            watch.held.set()
            while True:
                time.sleep(60)
        return write(place, *rest)

    def hold_in(module: ModuleType, *names: str) -> None:
        for name in names:
            setattr(module, name, partial(held, getattr(module, name)))

    hold_in(state, "save_safetensors", "save_json", "write_manifest")
    hold_in(checkpoint_parts, "_write", "save_json", "write_manifest")


def kill(run: ToyRun, step: int, random: Random, *, in_save: bool = False) -> Kill:
    """Let a run go on to a step, or into a save, and kill its processes, or one of several."""
    before = run.saved
    hold = Hold.at_random(run, step, random) if in_save else None
    members, watch = start(run, hold)
    if hold is not None:
        assert watch.held.wait(PATIENCE), "it came to its save"
    else:
        until = time.monotonic() + PATIENCE
        while watch.done.value < step and any(process.is_alive() for process in members):
            assert time.monotonic() < until, "it came to its step"
            time.sleep(0.001)
        time.sleep(random.uniform(0.0, 0.02))
    alone = run.processes > 1 and random.random() < 1 / 3
    first = members[random.randrange(run.processes) if hold is None else hold.rank]
    inside, others_ended = hold is not None or bool(run.half_saved), None
    if alone:
        first.kill()
        others_ended = all(ended(one) for one in members if one is not first)
    for process in random.sample(members, len(members)):
        process.kill()
    for process in members:
        process.join()
    damages = (damage_of(one) for one in list_checkpoints(run.folder))
    return Kill(
        reached=max(before, watch.done.value),
        saved=run.saved,
        saved_before=before,
        in_save=inside,
        others_ended=others_ended,
        damage=next((damage for damage in damages if damage is not None), None),
    )


def ended(process: Any) -> bool:
    """Wait for a process that has lost another one to end."""
    process.join(TO_NOTICE)
    return process.exitcode is not None


def kills(run: ToyRun, number: int, random: Random, *, in_save: int) -> Iterator[Kill]:
    """Kill a run at that many random steps before its end, `in_save` of them within saves."""
    # A busy machine lets a run go on for a while before it is killed; a save must be left then.
    last = run.steps * 9 // 10
    steps = sorted(random.sample(range(1, last), number))
    saving = set(random.sample(range(number), in_save))
    for index, step in enumerate(steps):
        yield kill(run, step, random, in_save=index in saving)
