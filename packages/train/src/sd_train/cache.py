"""What frozen encoders say of the data: computed once, kept in memory and on disk."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from sd_checkpoint import Checkpoint, save_safetensors
from sd_train.processes import first_goes_first


def module_fingerprint(module: nn.Module) -> str:
    """Hash a module's state: names, shapes, dtypes and values."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name}/{tuple(plain.shape)}/{plain.dtype}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def cached(
    folder: Path | None, name: str, key: str, compute: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return the tensors stored under (name, key) in `folder`, computing and storing them if new.

    `key` says everything the tensors depend on. Without a folder they live in memory only.
    """
    if folder is None:
        return compute()
    path = folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:20]}.safetensors"
    with first_goes_first():
        if path.is_file():
            return dict(Checkpoint.open(path))
        tensors = compute()
        save_safetensors(path, tensors, {"key": key})
        return tensors
