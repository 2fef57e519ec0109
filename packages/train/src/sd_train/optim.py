"""The optimizer and its learning-rate schedule."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sd_train.config import TrainerConfig
from sd_train.errors import TrainError
from sd_train.muon import Muon, inner_matrices
from sd_train.optional_optimizers import Groups, adamw_8bit, schedule_free


def lr_scale(step: int, config: TrainerConfig) -> float:
    """Return the factor on the learning rate for the optimizer step after `step` steps.

    Linear warm-up, then constant, or a half cosine down to `lr_final` of the rate (Loshchilov and
    Hutter, arXiv 1608.03983, equation 5, without restarts).
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return 1.0
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.lr_final + (1 - config.lr_final) * cosine


def build_optimizer(
    modules: Mapping[str, nn.Module], config: TrainerConfig
) -> torch.optim.Optimizer:
    """Make the optimizer of the settings, a group a module and decay.

    AdamW is Loshchilov and Hutter's, arXiv 1711.05101, Adafactor Shazeer and Stern's, arXiv
    1804.04235, in PyTorch's form; `optional_optimizers` has others. Vectors (biases, norm scales)
    are not decayed. Each group keeps its undamped rate in `base_lr`.

    Raises TrainError for rates of what does not learn, and for an optimizer that is not installed.
    """
    unknown = sorted(set(config.learning_rate_scales) - set(modules))
    if unknown:
        raise TrainError(
            f"trainer.learning_rate_scales names {unknown[0]!r}, which does not learn in this run; "
            f"what learns: {', '.join(modules)}"
        )
    groups: Groups = []
    for name, module in modules.items():
        rate = config.learning_rate * config.learning_rate_scales.get(name, 1.0)
        learning = [p for p in module.parameters() if p.requires_grad]
        inner: set[Tensor] = set(inner_matrices(module)) if config.optimizer == "muon" else set()
        kinds = (
            ([p for p in learning if p in inner], config.weight_decay, True),
            ([p for p in learning if p.ndim >= 2 and p not in inner], config.weight_decay, False),
            ([p for p in learning if p.ndim < 2], 0.0, False),
        )
        for parameters, decay, orthogonal in kinds:
            if parameters:
                groups.append(
                    {
                        "params": parameters,
                        "lr": rate,
                        "base_lr": rate,
                        "weight_decay": decay,
                        "orthogonal": orthogonal,
                    }
                )
    if not groups:
        raise TrainError("nothing learns in this run: every parameter is frozen")
    match config.optimizer:
        case "adafactor":
            return torch.optim.Adafactor(groups, lr=config.learning_rate)
        case "schedulefree":
            return schedule_free(groups, config)
        case "adamw8bit":
            return adamw_8bit(groups, config)
    kind = Muon if config.optimizer == "muon" else torch.optim.AdamW
    return kind(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, scale: float) -> None:
    """Scale every group's base rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * scale
