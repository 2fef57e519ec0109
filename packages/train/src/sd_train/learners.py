"""Modules that learn by one optimizer, and how both lie in a checkpoint."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sd_checkpoint import Checkpoint, load_into
from sd_train.config import TrainerConfig
from sd_train.errors import TrainError
from sd_train.optim import build_optimizer
from sd_train.sharding import is_sharded, is_shared_out, local, part_of, shared_out

_NUMBER = "#number"


class Learners:
    """Named modules, those of their parameters that learn, and the optimizer of these.

    `whole` are the parameters that are not shared out among the processes. `skipped` counts the
    steps without an update since the last one that had one.
    """

    def __init__(self, modules: Mapping[str, nn.Module], config: TrainerConfig) -> None:
        self.modules = dict(modules)
        self.config = config
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
        self.whole = [one for one in self.parameters if not is_sharded(one)]
        self.skipped = 0

    def weights(self) -> dict[str, Tensor]:
        """Return the state of all modules, their names as prefixes."""
        return {
            f"{prefix}.{key}": tensor
            for prefix, module in self.modules.items()
            for key, tensor in module.state_dict().items()
        }

    def load_weights(self, weights: Checkpoint, folder: Path) -> None:
        """Take up what `weights` gave; `folder` is named in errors."""
        for prefix, module in self.modules.items():
            own = weights.under(f"{prefix}.")
            if is_shared_out(module):
                _fill_parts(module, own, folder / prefix)
            else:
                load_into(module, own, what=str(folder / prefix))

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Return the optimizer's state as "name of a parameter/name of a slot".

        A slot that is a whole number and no tensor has a mark behind its name.
        """
        state: Mapping[int, Mapping[str, Tensor | int]] = self.optimizer.state_dict()["state"]
        names = self._ordered_names()
        tensors: dict[str, Tensor] = {}
        for index, slots in state.items():
            for slot, value in slots.items():
                if isinstance(value, Tensor):
                    tensors[f"{names[index]}/{slot}"] = value
                else:
                    tensors[f"{names[index]}/{slot}{_NUMBER}"] = torch.tensor(value)
        return tensors

    def load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `optimizer_tensors` gave; what is of other learners is passed over."""
        by_name: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            name, slot = key.rsplit("/", 1)
            by_name.setdefault(name, {})[slot] = tensor
        parameters = {name: parameter for parameter, name in self.names.items()}
        whole = self.optimizer.state_dict()
        whole["state"] = {
            index: dict(_slots(by_name[name], parameters[name]))
            for index, name in enumerate(self._ordered_names())
            if name in by_name
        }
        self.optimizer.load_state_dict(whole)

    def _ordered_names(self) -> list[str]:
        groups = self.optimizer.param_groups
        return [self.names[parameter] for group in groups for parameter in group["params"]]


def _fill_parts(module: nn.Module, weights: Checkpoint, what: Path) -> None:
    own = module.state_dict()
    odd = own.keys() ^ weights.keys()
    odd |= {key for key in own.keys() - odd if own[key].shape != weights[key].shape}
    if odd:
        raise TrainError(f"{what} has another {min(odd)!r}; go on with the same networks")
    for key, tensor in own.items():
        local(tensor).copy_(part_of(weights[key], tensor))


def _slots(saved: Mapping[str, Tensor], parameter: nn.Parameter) -> Iterator[tuple[str, Any]]:
    for slot, tensor in saved.items():
        if slot.endswith(_NUMBER):
            yield slot.removesuffix(_NUMBER), int(tensor)
        else:
            yield slot, _laid_out(tensor, parameter)


def _laid_out(tensor: Tensor, parameter: nn.Parameter) -> Tensor:
    # Fused AdamW walks parameter and state in memory order, so both need the same strides.
    if tensor.shape != parameter.shape:
        return tensor
    if is_sharded(parameter):
        return tensor if is_sharded(tensor) else shared_out(tensor, parameter)
    return torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
