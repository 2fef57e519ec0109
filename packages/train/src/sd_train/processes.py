"""The processes that train one run together, as torchrun starts them; most often there is one."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sd_train.errors import TrainError

T = TypeVar("T")

# The others wait while the first validates, saves or encodes a whole data set.
_PATIENCE = timedelta(hours=12)
_TOLD_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def rank() -> int:
    """Return the number of this process; the first, 0, alone writes and talks."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Tell whether this process is the one that writes and talks."""
    return rank() == 0


def local_rank() -> int:
    """Return this process's number on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def joined() -> Iterator[None]:
    """Join the other processes, where torchrun has started several; may be entered again.

    They speak NCCL where there are GPUs, and gloo elsewhere. Raises TrainError where they do not
    come together, and in those that lose the others.
    """
    alone = int(os.environ.get("WORLD_SIZE", "1")) < 2
    if alone or dist.is_initialized() or any(name not in os.environ for name in _TOLD_BY_TORCHRUN):
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(local_rank())
    try:
        dist.init_process_group(backend, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        told = str(error).splitlines()[0]
        raise TrainError(f"the processes of this run do not come together: {told}") from error
    try:
        yield
    except RuntimeError as error:
        told = str(error).splitlines()[0]
        if not isinstance(error, dist.DistError) and "gloo" not in told:
            raise
        raise TrainError(
            f"process {rank()} has lost the others, one of which says why it ended ({told})"
        ) from error
    finally:
        dist.destroy_process_group()


@contextmanager
def first_goes_first() -> Iterator[None]:
    """Let the first process through before the others, which find on disk what it has made."""
    if not is_first():
        wait()
    yield
    if is_first():
        wait()


def wait() -> None:
    """Wait until every process is here."""
    if count() > 1:
        dist.barrier()


def agreed(number: int) -> int:
    """Return the highest of the numbers of all processes: a wish of one is a wish of all."""
    if count() == 1:
        return number
    told = torch.tensor(number)
    dist.all_reduce(told, dist.ReduceOp.MAX)
    return int(told)


def told_by_first(text: str) -> str:
    """Return what the first process says; what the others say is not heard."""
    if count() == 1:
        return text
    told = [text]
    dist.broadcast_object_list(told)
    return told[0]


def merged(mine: Mapping[str, T]) -> dict[str, T]:
    """Return what all processes have, by name."""
    if count() == 1:
        return dict(mine)
    everybody: list[Any] = [None] * count()
    dist.all_gather_object(everybody, dict(mine))
    return {name: value for each in everybody for name, value in each.items()}


def start_alike(modules: Sequence[nn.Module]) -> None:
    """Give all processes the first one's weights."""
    if count() == 1:
        return
    for module in modules:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


@torch.no_grad()
def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum the gradients of all processes into those of each.

    What learnt nothing in one of them learns what it did in the others; what learnt nothing in any
    keeps no gradient.
    """
    if count() == 1 or not parameters:
        return
    used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
    dist.all_reduce(used, dist.ReduceOp.MAX)
    under_way = []
    for parameter, learns in zip(parameters, used.tolist(), strict=True):
        if not learns:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        under_way.append(dist.all_reduce(parameter.grad, async_op=True))
    for each in under_way:
        assert each is not None
        each.wait()


def sum_scalars(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sum scalars of equal names over the processes, all of them in one message."""
    if count() == 1:
        return dict(values)
    together = torch.stack([value.float() for value in values.values()])
    dist.all_reduce(together)
    return dict(zip(values, together.unbind(), strict=True))
