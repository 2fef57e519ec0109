"""Which torch a setting needs, where that is a later one than all else here does."""

import torch

from sd_train.errors import TrainError

SHARING = (2, 9)
"""Of what is shared out: since then `HuggingFaceStorageWriter` has `save_distributed`.

What shares it out is older: `FSDPModule.set_force_sum_reduction_for_comms` is of 2.8.
"""

COMPILING = (2, 7)
"""Of compiled blocks: since then how often one may be compiled is called `recompile_limit`."""


def check_torch(least: tuple[int, int], what: str, instead: str = "") -> None:
    """Raise TrainError where torch is older than `least`, which `what` needs."""
    found = str(torch.__version__)
    if tuple(int(part) for part in found.split(".")[:2]) < least:
        mend = f"update torch, or {instead}" if instead else "update torch"
        raise TrainError(f"{what} needs torch {least[0]}.{least[1]}, but this is {found}; {mend}")
