"""The state of a run, and its checkpoints: folders of safetensors and JSON, no pickle."""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from torch import Tensor, nn

from sd_checkpoint import Checkpoint, atomic_path, load_json, save_json, save_safetensors
from sd_train.best import Best, read_best
from sd_train.checkpoint_parts import AVERAGES, SLOTS, WEIGHTS, has_parts, load_parts, save_parts
from sd_train.config import TrainerConfig
from sd_train.ema import Ema
from sd_train.errors import TrainError
from sd_train.learners import Learners
from sd_train.manifest import damage_of, write_manifest
from sd_train.optional_optimizers import averaged, counted, recount
from sd_train.precision import grad_scaler
from sd_train.processes import count
from sd_train.sharding import is_sharded, local, part_of, shard
from sd_train.task import Opponent, Task, opponent_of

_STEP_FOLDER = re.compile(r"step-(\d+)")


class TrainState:
    """Everything a run changes: weights, averages, optimizer, loss scale, step, data position.

    And which validation was the best, and whether one was broken off and is still to be done. An
    opponent's weights and optimizer are in the same files; there are no averages of it. Random
    numbers need no state of their own: they are a function of (seed, position).
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        config: TrainerConfig,
        opponent: Opponent | None = None,
    ) -> None:
        self.learners = Learners(modules, config)
        self.opposing = None if opponent is None else _opposing(opponent, modules)
        self.parameters = self.learners.parameters
        self.device = self.parameters[0].device
        self.is_sharded = any(is_sharded(parameter) for parameter in self.parameters)
        averages_itself = config.optimizer == "schedulefree"
        decay = 0.0 if averages_itself else config.ema_decay
        self.ema = Ema(self.parameters, decay, config.ema_power)
        self.scaler = grad_scaler(config.precision, self.device)
        self.seed = config.seed
        self.step = 0
        self.position = 0
        self.best: Best | None = None
        self.owes_validation = False
        self.optimizer = config.optimizer

    @classmethod
    def of(cls, task: Task, config: TrainerConfig) -> "TrainState":
        """Make the state of a run of `task`, its opponent included.

        Of several processes each has its part of it, where the settings want that.
        """
        if config.parallel == "fsdp" and count() > 1:
            shard(task, config)
        return cls(task.modules(), config, opponent_of(task))

    @property
    def everybody(self) -> tuple[Learners, ...]:
        """The learners, and those who oppose them."""
        return (self.learners,) if self.opposing is None else (self.learners, self.opposing)

    def save(self, folder: Path) -> None:
        """Write the checkpoint `folder`, whole or not at all.

        Of a state that is shared out every process takes part.
        """
        progress: dict[str, object] = {
            "step": self.step,
            "position": self.position,
            "seed": self.seed,
            "loss_scaler": self.scaler.state_dict(),
            "best": self.best and asdict(self.best),
            "owes_validation": self.owes_validation,
            "optimizer": self.optimizer,
        }
        groups = [counted(learners.optimizer) for learners in self.everybody]
        if any(group for each in groups for group in each):
            progress["groups"] = groups
        if self.is_sharded:
            slots = {SLOTS + name: tensor for name, tensor in self._optimizer_tensors().items()}
            save_parts(folder, {**self._learnt(), **slots}, progress)
            return
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            save_safetensors(temporary / "weights.safetensors", self._weights())
            save_safetensors(temporary / "ema.safetensors", self._averages())
            save_safetensors(temporary / "optimizer.safetensors", self._optimizer_tensors())
            save_json(temporary / "state.json", progress)
            write_manifest(temporary)

    def num_bytes(self) -> int:
        """Return how many bytes a checkpoint has, about."""
        parts = (self._weights(), self._averages(), self._optimizer_tensors())
        every = (tensor for part in parts for tensor in part.values())
        return sum(tensor.numel() * tensor.element_size() for tensor in every)

    def load(self, folder: Path) -> None:
        """Take up the state of a checkpoint; raise TrainError where it belongs to another run."""
        progress = load_json(folder / "state.json")
        if progress["seed"] != self.seed:
            raise TrainError(
                f"trainer.seed = {self.seed}, but {folder} was trained with seed "
                f"{progress['seed']}; set it back to go on"
            )
        before = progress.get("optimizer", self.optimizer)
        if before != self.optimizer:
            raise TrainError(
                f"trainer.optimizer = {self.optimizer!r}, but {folder} was trained with "
                f"{before!r}; set it back to go on, or begin a run from what this one has learnt"
            )
        if has_parts(folder):
            self._load_parts(folder)
        else:
            self._load_whole(folder)
        for learners, groups in zip(self.everybody, progress.get("groups", ()), strict=False):
            recount(learners.optimizer, groups)
        if progress["loss_scaler"]:
            self.scaler.load_state_dict(progress["loss_scaler"])
        self.step, self.position = progress["step"], progress["position"]
        best = progress.get("best")  # not in those of earlier versions
        self.best = best and Best(**best)
        self.owes_validation = progress.get("owes_validation", False)

    def _load_whole(self, folder: Path) -> None:
        weights = Checkpoint.open(folder / "weights.safetensors")
        slots = Checkpoint.open(folder / "optimizer.safetensors")
        for learners in self.everybody:
            learners.load_weights(weights, folder)
            learners.load_optimizer(slots)
        if not self.ema.decay:
            return
        averages = Checkpoint.open(folder / "ema.safetensors")
        for name, average in self._averages().items():
            local(average).copy_(part_of(_tensor(averages, name), average))

    def _load_parts(self, folder: Path) -> None:
        owners = {name: one for each in self.everybody for one, name in each.names.items()}
        slots = load_parts(folder, self._learnt(), owners)
        for learners in self.everybody:
            learners.load_optimizer(slots)

    def _learnt(self) -> dict[str, Tensor]:
        """Return weights, and averages where there are others, by names that tell them apart."""
        named = {WEIGHTS + name: tensor for name, tensor in self._weights().items()}
        if self.ema.decay:
            named |= {AVERAGES + name: tensor for name, tensor in self._averages().items()}
        return named

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the modules hold averaged weights in the context, whoever keeps them."""
        with self.ema.swapped(), averaged(self.learners.optimizer, self.parameters):
            yield

    def _averages(self) -> dict[str, Tensor]:
        averages = self.ema.averages
        if hasattr(self.learners.optimizer, "eval"):
            with averaged(self.learners.optimizer, self.parameters):
                averages = [parameter.detach().clone() for parameter in self.parameters]
        return dict(zip(self.learners.names.values(), averages, strict=True))

    def _weights(self) -> dict[str, Tensor]:
        return {key: t for each in self.everybody for key, t in each.weights().items()}

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        return {key: t for each in self.everybody for key, t in each.optimizer_tensors().items()}


def _opposing(opponent: Opponent, modules: Mapping[str, nn.Module]) -> Learners:
    opposing = opponent.modules()
    # One file holds the weights of both sides.
    assert not opposing.keys() & modules.keys(), opposing.keys()
    return Learners(opposing, opponent.config)


def _tensor(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise TrainError(f"the checkpoint has no averaged weight {name!r}; is it another run's?")
    return tensors[name]


def checkpoint_folder(run_folder: Path, step: int) -> Path:
    """Name the checkpoint of a step."""
    return run_folder / "checkpoints" / f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """Return the step of a checkpoint, by its name."""
    return int(folder.name.removeprefix("step-"))


def list_checkpoints(run_folder: Path) -> list[Path]:
    """List the whole checkpoints of a run, the latest step last."""
    folders = (run_folder / "checkpoints").glob("step-*")
    found = [(int(m[1]), f) for f in folders if (m := _STEP_FOLDER.fullmatch(f.name))]
    return [folder for _, folder in sorted(found)]


def latest_checkpoint(run_folder: Path) -> Path:
    """Return the checkpoint with the highest step; raise TrainError when there is none."""
    found = list_checkpoints(run_folder)
    if not found:
        raise TrainError(f"{run_folder} holds no checkpoint; start the run without resuming")
    return found[-1]


def newest_whole_checkpoint(run_folder: Path, tell: Callable[[str], None]) -> Path:
    """Return the checkpoint with the highest step that is not damaged, and tell of those that are.

    Raises TrainError when there is none.
    """
    latest_checkpoint(run_folder)
    for folder in reversed(list_checkpoints(run_folder)):
        damage = damage_of(folder)
        if damage is None:
            return folder
        tell(f"{folder} is damaged and passed over: {damage}")
    raise TrainError(f"every checkpoint of {run_folder} is damaged; begin the run anew")


def kept_best(run_folder: Path, best: Best | None) -> Path | None:
    """Return the checkpoint of the best validation, None where there is none or it is gone."""
    folder = None if best is None else checkpoint_folder(run_folder, best.step)
    return folder if folder is not None and folder.is_dir() else None


def best_checkpoint(run_folder: Path) -> Path:
    """Return the checkpoint of a run's best validation; raise TrainError if there is no whole one.

    It is kept among the others, see `TrainerConfig.best_by`.
    """
    folder = kept_best(run_folder, read_best(run_folder))
    if folder is None:
        raise TrainError(f"{run_folder} has no best checkpoint yet; take the latest one")
    damage = damage_of(folder)
    if damage is not None:
        raise TrainError(
            f"the best checkpoint, {folder}, is damaged: {damage}; take the latest one"
        )
    return folder


def remove_leftovers(run_folder: Path) -> None:
    """Remove what a process that was killed within a save has left; none other may be in there."""
    for folder in (run_folder / "checkpoints").glob(".*-step-*"):
        shutil.rmtree(folder)


def remove_old_checkpoints(run_folder: Path, keep_last: int, best: Best | None = None) -> None:
    """Remove all but the last checkpoints of a run and the best, each at once: no part stays."""
    for folder in list_checkpoints(run_folder)[:-keep_last]:
        if best is not None and step_of(folder) == best.step:
            continue
        gone = folder.with_name(f".old-{folder.name}")
        folder.rename(gone)
        shutil.rmtree(gone)
