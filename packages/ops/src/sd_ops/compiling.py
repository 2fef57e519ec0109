"""Networks whose blocks are compiled one by one, where they stand (torch.compile)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = [
    "COMPILES_SINCE",
    "blocks_of",
    "compile_blocks",
    "torch_release",
    "with_room_for_variants",
]

COMPILES_SINCE = (2, 7)
"""The torch that this needs: since then how often one may be compiled is `recompile_limit`."""

_BACKEND = "inductor"
# Blocks of one class share a function, and each size and each adapter is a variant of it.
_MAX_VARIANTS = 512


def compile_blocks(network: nn.Module) -> int:
    """Compile a network's blocks where they stand; return how many there are.

    Names of weights, hooks and checkpointing are as ever, and compiling waits for the first call,
    which is to be made within `with_room_for_variants`.
    """
    blocks = list(blocks_of(network))
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
def with_room_for_variants() -> Iterator[None]:
    """Let many variants of a block be compiled in the context, and adapters in them be heard.

    Needs a torch of `COMPILES_SINCE` or later.
    """
    import torch._dynamo.config as settings

    with settings.patch(recompile_limit=_MAX_VARIANTS, skip_nnmodule_hook_guards=False):
        yield


def torch_release() -> tuple[int, ...]:
    """Return the first two numbers of torch's version."""
    return tuple(int(part) for part in str(torch.__version__).split(".")[:2])
