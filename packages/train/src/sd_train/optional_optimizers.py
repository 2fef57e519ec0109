"""Optimizers of libraries that are installed by those who want them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from sd_train.config import TrainerConfig
from sd_train.errors import TrainError

Groups = list[dict[str, Any]]

# What schedule-free's groups count from step to step, beside the state of each parameter.
_COUNTED = ("k", "lr_max", "scheduled_lr", "train_mode", "weight_sum")


def schedule_free(groups: Groups, config: TrainerConfig) -> torch.optim.Optimizer:
    """Make schedule-free AdamW (Defazio et al., arXiv 2405.15682) of the package `schedulefree`.

    Raises TrainError where that is not installed.
    """
    library = _imported("schedulefree", config.optimizer)
    optimizer: Any = library.AdamWScheduleFree(
        groups, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    optimizer.train()
    made: torch.optim.Optimizer = optimizer
    return made


def adamw_8bit(groups: Groups, config: TrainerConfig) -> torch.optim.Optimizer:
    """Make AdamW with states of 8 bits (Dettmers et al., arXiv 2110.02861) of `bitsandbytes`.

    Raises TrainError where that is not installed, or the parameters are not on a GPU.
    """
    device = groups[0]["params"][0].device
    if device.type != "cuda":
        raise TrainError(
            f"trainer.optimizer = {config.optimizer!r} needs a CUDA device, not {device.type!r}; "
            "use 'adafactor', which keeps less than AdamW on every device"
        )
    library = _imported("bitsandbytes", config.optimizer)
    optimizer: torch.optim.Optimizer = library.optim.AdamW8bit(
        groups, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    return optimizer


def counted(optimizer: torch.optim.Optimizer) -> list[dict[str, float | bool]]:
    """Return what the groups of an optimizer count, which is to be in a checkpoint."""
    return [
        {name: group[name] for name in _COUNTED if name in group}
        for group in optimizer.param_groups
    ]


def recount(optimizer: torch.optim.Optimizer, groups: Sequence[dict[str, float | bool]]) -> None:
    """Take up what `counted` gave."""
    for group, values in zip(optimizer.param_groups, groups, strict=False):
        group.update(values)


@contextmanager
def averaged(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
) -> Iterator[None]:
    """Let the parameters hold the averages of an optimizer that keeps its own inside the context.

    Afterwards they are bit for bit what they were: the way there and back would round them.
    """
    switched: Any = optimizer
    if not hasattr(switched, "eval"):
        yield
        return
    kept: list[Tensor] = [parameter.detach().clone() for parameter in parameters]
    switched.eval()
    try:
        yield
    finally:
        switched.train()
        with torch.no_grad():
            torch._foreach_copy_(list(parameters), kept)


def _imported(package: str, optimizer: str) -> Any:
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise TrainError(
            f"trainer.optimizer = {optimizer!r} needs the package {package}, which is not "
            f"installed; `pip install \"sd-train[{package}]\"`, or use 'adamw'"
        ) from error
