"""The blocks of networks that learn, compiled one by one."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

import sd_ops
from sd_train.errors import TrainError
from sd_train.task import Task
from sd_train.torch_needed import check_torch


def compile_blocks(task: Task) -> int:
    """Compile the blocks of a task's networks where they stand; return how many there are.

    As `sd_ops.compile_blocks`. Raises TrainError for a task that names no networks, and where torch
    is too old.
    """
    check_torch(sd_ops.COMPILES_SINCE, "trainer.compile = true", "set it to false")
    networks: Sequence[nn.Module] = getattr(task, "networks", ())
    if not networks:
        raise TrainError(
            "trainer.compile = true, but this method names nothing to be compiled; set it to false"
        )
    return sum(sd_ops.compile_blocks(network) for network in networks)


def with_room_for_variants(wanted: bool) -> AbstractContextManager[None]:
    """Let many variants of a block be compiled in the context, and adapters in them be heard."""
    return sd_ops.with_room_for_variants() if wanted else nullcontext()


def uncompiled() -> AbstractContextManager[object]:
    """Run what was compiled as it is written: what is seldom asked for is not worth compiling."""
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance
