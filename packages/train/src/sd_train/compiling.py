"""The blocks of networks that learn, compiled one by one."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

from sd_train.errors import TrainError
from sd_train.task import Task
from sd_train.torch_needed import COMPILING, check_torch

_BACKEND = "inductor"
# Blocks of one class share a function, and each size and each adapter is a variant of it.
_MAX_VARIANTS = 512


def compile_blocks(task: Task) -> int:
    """Compile the blocks of a task's networks where they stand; return how many there are.

    A block is what a `ModuleList` holds and holds none itself. Names of weights, hooks and
    checkpointing are as ever, and compiling waits for the first call. Raises TrainError for a task
    that names no networks, and where torch is too old.
    """
    check_torch(COMPILING, "trainer.compile = true", "set it to false")
    networks: Sequence[nn.Module] = getattr(task, "networks", ())
    if not networks:
        raise TrainError(
            "trainer.compile = true, but this method names nothing to be compiled; set it to false"
        )
    blocks = [block for network in networks for block in blocks_of(network)]
    for block in blocks:
        block.compile(backend=_BACKEND, dynamic=False)
    return len(blocks)


def blocks_of(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the innermost modules that lists of a network hold."""
    for holder in network.modules():
        if isinstance(holder, nn.ModuleList):
            for block in holder:
                if not any(isinstance(part, nn.ModuleList) for part in block.modules()):
                    yield block


@contextmanager
def with_room_for_variants(wanted: bool) -> Iterator[None]:
    """Let many variants of a block be compiled in the context, and adapters in them be heard."""
    if not wanted:
        yield
        return
    import torch._dynamo.config as settings

    with settings.patch(recompile_limit=_MAX_VARIANTS, skip_nnmodule_hook_guards=False):
        yield


def uncompiled() -> AbstractContextManager[object]:
    """Run what was compiled as it is written: what is seldom asked for is not worth compiling."""
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance
