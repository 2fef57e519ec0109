"""The state of a run, and its checkpoints: folders of safetensors and JSON, no pickle."""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sd_checkpoint import Checkpoint, atomic_path, load_into, load_json, save_json, save_safetensors
from sd_train.config import TrainerConfig
from sd_train.ema import Ema
from sd_train.errors import TrainError
from sd_train.manifest import damage_of, write_manifest
from sd_train.optim import build_optimizer
from sd_train.precision import grad_scaler

_STEP_FOLDER = re.compile(r"step-(\d+)")


class TrainState:
    """Everything a run changes: weights, averages, optimizer, loss scale, step, data position.

    Random numbers need no state of their own: they are a function of (seed, position).
    """

    def __init__(self, modules: Mapping[str, nn.Module], config: TrainerConfig) -> None:
        self.modules = dict(modules)
        self.names: dict[nn.Parameter, str] = {
            parameter: f"{prefix}.{name}"
            for prefix, module in modules.items()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        for parameter, name in self.names.items():
            if parameter.dtype != torch.float32:
                raise TrainError(f"{name} is {parameter.dtype}; what learns must be torch.float32")
        self.optimizer = build_optimizer(modules, config)
        self.parameters = list(self.names)
        self.device = self.parameters[0].device
        self.ema = Ema(self.parameters, config.ema_decay, config.ema_power)
        self.scaler = grad_scaler(config.precision, self.device)
        self.seed = config.seed
        self.step = 0
        self.position = 0

    def save(self, folder: Path) -> None:
        """Write the checkpoint `folder`, whole or not at all."""
        weights = {
            f"{prefix}.{key}": tensor
            for prefix, module in self.modules.items()
            for key, tensor in module.state_dict().items()
        }
        progress = {
            "step": self.step,
            "position": self.position,
            "seed": self.seed,
            "loss_scaler": self.scaler.state_dict(),
        }
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            save_safetensors(temporary / "weights.safetensors", weights)
            save_safetensors(temporary / "ema.safetensors", self._averages())
            save_safetensors(temporary / "optimizer.safetensors", self._optimizer_tensors())
            save_json(temporary / "state.json", progress)
            write_manifest(temporary)

    def num_bytes(self) -> int:
        """Return how many bytes a checkpoint has, about."""
        weights = (t for module in self.modules.values() for t in module.state_dict().values())
        every = (*weights, *self._averages().values(), *self._optimizer_tensors().values())
        return sum(tensor.numel() * tensor.element_size() for tensor in every)

    def load(self, folder: Path) -> None:
        """Take up the state of a checkpoint; raise TrainError where it belongs to another run."""
        progress = load_json(folder / "state.json")
        if progress["seed"] != self.seed:
            raise TrainError(
                f"trainer.seed = {self.seed}, but {folder} was trained with seed "
                f"{progress['seed']}; set it back to go on"
            )
        weights = Checkpoint.open(folder / "weights.safetensors")
        for prefix, module in self.modules.items():
            load_into(module, weights.under(f"{prefix}."), what=str(folder / prefix))
        self.load_averages(folder)
        self._load_optimizer(Checkpoint.open(folder / "optimizer.safetensors"))
        if progress["loss_scaler"]:
            self.scaler.load_state_dict(progress["loss_scaler"])
        self.step, self.position = progress["step"], progress["position"]

    def load_averages(self, folder: Path) -> None:
        """Take up the averaged weights of a checkpoint, where this run averages."""
        if not self.ema.decay:
            return
        averages = Checkpoint.open(folder / "ema.safetensors")
        for average, name in zip(self.ema.averages, self.names.values(), strict=True):
            average.copy_(_tensor(averages, name))

    def _averages(self) -> dict[str, Tensor]:
        return dict(zip(self.names.values(), self.ema.averages, strict=True))

    def _ordered_names(self) -> list[str]:
        groups = self.optimizer.param_groups
        return [self.names[parameter] for group in groups for parameter in group["params"]]

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        state: Mapping[int, Mapping[str, Tensor]] = self.optimizer.state_dict()["state"]
        names = self._ordered_names()
        return {
            f"{names[index]}/{slot}": tensor
            for index, slots in state.items()
            for slot, tensor in slots.items()
        }

    def _load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        by_name: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            name, slot = key.rsplit("/", 1)
            by_name.setdefault(name, {})[slot] = tensor
        parameters = {name: parameter for parameter, name in self.names.items()}
        whole = self.optimizer.state_dict()
        whole["state"] = {
            index: {slot: _laid_out(t, parameters[name]) for slot, t in by_name[name].items()}
            for index, name in enumerate(self._ordered_names())
            if name in by_name
        }
        self.optimizer.load_state_dict(whole)


def _laid_out(tensor: Tensor, parameter: nn.Parameter) -> Tensor:
    # Fused AdamW walks parameter and state in memory order, so both need the same strides.
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)


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


def remove_leftovers(run_folder: Path) -> None:
    """Remove what a process that was killed within a save has left; none other may be in there."""
    for folder in (run_folder / "checkpoints").glob(".*-step-*"):
        shutil.rmtree(folder)


def remove_old_checkpoints(run_folder: Path, keep_last: int) -> None:
    """Remove all but the last checkpoints of a run, each at once: a part of one is none."""
    for folder in list_checkpoints(run_folder)[:-keep_last]:
        gone = folder.with_name(f".old-{folder.name}")
        folder.rename(gone)
        shutil.rmtree(gone)
