"""Muon: momentum made orthogonal, for the matrices inside a network."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sd_train.sharding import gathered, local, part_of

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 5
_MOMENTUM = 0.95
_LIKE_ADAM = 0.2
_LEAST_SIDE = 32


class Muon(torch.optim.AdamW):
    """Take AdamW's step for vectors, embeddings and thin matrices, Muon's for groups `orthogonal`.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024): the momentum of
    each matrix is brought near the closest one whose singular values are all 1, so that directions
    that are seldom asked for are learned as fast as the others. It is scaled to the length of an
    AdamW step (Liu et al., "Muon is Scalable for LLM Training", arXiv 2502.16982, equation 4), and
    takes the same learning rates and weight decay. A convolution is a matrix (out, in * k * k).
    What is shared out among processes is joined to be made orthogonal, in each of them.
    """

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        every = self.param_groups
        self.param_groups = [group for group in every if not group["orthogonal"]]
        try:
            loss: float | None = super().step(closure)
        finally:
            self.param_groups = every
        for group in every:
            if group["orthogonal"]:
                self._step_orthogonal(group)
        return loss

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up a state; AdamW's own way looks for its slots in every parameter's."""
        torch.optim.Optimizer.__setstate__(self, state)

    @torch.no_grad()
    def _step_orthogonal(self, group: dict[str, Any]) -> None:
        by_shape: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                rows = parameter.shape[0]
                by_shape[rows, parameter.numel() // rows].append(parameter)
        for shape, parameters in by_shape.items():
            momenta = [gathered(self._momentum(one), one).reshape(shape) for one in parameters]
            matrices = torch.stack(momenta)
            updates = orthogonalized(matrices)
            length = _LIKE_ADAM * max(shape) ** 0.5
            for parameter, update in zip(parameters, updates, strict=True):
                mine = local(parameter)
                mine.mul_(1 - group["lr"] * group["weight_decay"])
                step = update.to(parameter.dtype).reshape(parameter.shape)
                mine.add_(part_of(step, parameter), alpha=-group["lr"] * length)

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        """Add a parameter's gradient to its momentum and look a step ahead, as Nesterov's does.

        Of one that is shared out each process does and returns its part.
        """
        grad, state = parameter.grad, self.state[parameter]
        assert grad is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(grad)
        momentum, mine = local(state["momentum"]), local(grad)
        momentum.lerp_(mine, 1 - _MOMENTUM)
        return mine.lerp(momentum, _MOMENTUM)


def orthogonalized(matrices: Tensor, num_iterations: int = _NUM_ITERATIONS) -> Tensor:
    """Bring the singular values of each matrix (N, rows, columns) near 1, its vectors kept.

    A quintic Newton-Schulz iteration in bfloat16 that leaves them between 0.7 and 1.2 or so; exact
    ones are not worth their time.
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = (x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)).bfloat16()
    for _ in range(num_iterations):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = x.mT if tall else x
    return result


def inner_matrices(module: nn.Module) -> Iterable[Tensor]:
    """Yield the weights of linear layers and convolutions that learn and are no thinner than 32."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.requires_grad:
            rows = layer.weight.shape[0]
            if min(rows, layer.weight.numel() // rows) >= _LEAST_SIDE:
                yield layer.weight
