"""Which torch a setting needs, where that is a later one than all else here does."""

import torch

from sd_ops import torch_release
from sd_train.errors import TrainError

SHARING = (2, 9)
"""Of what is shared out: since then `HuggingFaceStorageWriter` has `save_distributed`.

What shares it out is older: `FSDPModule.set_force_sum_reduction_for_comms` is of 2.8.
"""


def check_torch(least: tuple[int, int], what: str, instead: str = "") -> None:
    """Raise TrainError where torch is older than `least`, which `what` needs."""
    if torch_release() < least:
        mend = f"update torch, or {instead}" if instead else "update torch"
        raise TrainError(
            f"{what} needs torch {least[0]}.{least[1]}, but this is {torch.__version__}; {mend}"
        )
