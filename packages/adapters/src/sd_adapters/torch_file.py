"""Writing files of ``torch.save`` that the field's restricted readers open."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from sd_checkpoint import atomic_path


def save_pickle(path: str | os.PathLike[str], content: Mapping[Any, Any]) -> None:
    """Write plain containers, numbers, texts and tensors, whole or not at all.

    In the form from before zip files: the web UI refuses an archive with names in it that it does
    not know, and newer versions of torch put some there. Every reader opens the older form.
    Raises ``CheckpointError`` when the place cannot be written to.
    """
    with atomic_path(path) as temporary:
        torch.save(dict(content), temporary, _use_new_zipfile_serialization=False)
