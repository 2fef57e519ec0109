"""Checkpoints of runs that are shared out: each process writes its part, any number reads them.

Through torch.distributed.checkpoint, in its safetensors form, which is read without unpickling.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sd_checkpoint import CheckpointError, atomic_path, save_json
from sd_train.errors import TrainError
from sd_train.manifest import FileState, state_of, write_manifest
from sd_train.processes import count, is_first, merged, rank, told_by_first, wait
from sd_train.torch_needed import SHARING, check_torch

WEIGHTS, AVERAGES, SLOTS = "weights/", "ema/", "optimizer/"


def has_parts(folder: Path) -> bool:
    """Tell whether a checkpoint is in parts."""
    return any(_parts(folder))


def save_parts(folder: Path, tensors: Mapping[str, Tensor], progress: Mapping[str, object]) -> None:
    """Write the checkpoint `folder`, whole or not at all; every process takes part.

    What all processes have alike is written by one. Raises CheckpointError in each of them where
    one cannot write its part.
    """
    if is_first():
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            told_by_first(temporary.name)
            states = _write(temporary, tensors, folder)
            save_json(temporary / "state.json", dict(progress))
            write_manifest(temporary, states)
    else:
        _write(folder.with_name(told_by_first("")), tensors, folder)
    wait()


def load_parts(
    folder: Path, tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Fill `tensors` in place, each process what it has of them, and return the optimizer's state.

    That is by "name of a parameter/name of a slot", shared out as the parameters are. Raises
    TrainError where the checkpoint's weights are others than those of `tensors`, and where torch is
    too old to read it.
    """
    check_torch(SHARING, f"{folder}, a checkpoint in parts,")
    found = _found(folder)
    odd = _weights(found) ^ _weights(tensors)
    if odd:
        raise TrainError(
            f"{folder} is another run's: {min(odd)!r} is not in both; go on with the same networks"
        )
    slots = {
        name: _slot(shape, parameters[owner])
        for name, shape in found.items()
        if name.startswith(SLOTS)
        and (owner := name.removeprefix(SLOTS).rpartition("/")[0]) in parameters
    }
    _read(folder, {**tensors, **slots})
    return {name.removeprefix(SLOTS): tensor for name, tensor in slots.items()}


def _weights(names: Mapping[str, object]) -> set[str]:
    return {name.removeprefix(WEIGHTS) for name in names if name.startswith(WEIGHTS)}


def _slot(shape: torch.Size, parameter: nn.Parameter) -> Tensor:
    if shape == parameter.shape:
        return torch.zeros_like(parameter, requires_grad=False)
    return torch.zeros(shape, device=parameter.device)


def _write(place: Path, tensors: Mapping[str, Tensor], folder: Path) -> dict[str, FileState]:
    """Write this process's part of `folder` to a place; return how the files of all are."""
    # Imported here and below: it takes long, and most runs have one process.
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    writer = HuggingFaceStorageWriter(str(place), save_distributed=True)
    try:
        save({name: t.contiguous() for name, t in tensors.items()}, storage_writer=writer)
    except CheckpointException as error:
        reason = _reason(error.failures)
        raise CheckpointError(f"cannot write {folder}: {reason}; choose another place") from error
    return merged({path.name: state_of(path) for path in _parts(place, f"{rank() + 1:05}")})


def _read(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = HuggingFaceStorageReader(str(folder))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is .*uninitialized")
            load(dict(tensors), storage_reader=reader, no_dist=count() == 1)
    except CheckpointException as error:
        reason = _reason(error.failures)
        raise TrainError(
            f"{folder} is another run's: {reason}; go on with the same networks"
        ) from error


def _found(folder: Path) -> dict[str, torch.Size]:
    """Return the shapes of the whole tensors of a checkpoint in parts."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    there = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {name: it.size for name, it in there.items() if isinstance(it, TensorStorageMetadata)}


def _parts(folder: Path, number: str = "*") -> list[Path]:
    """List the parts in a checkpoint, by the names that torch gives them."""
    return sorted(folder.glob(f"shard-{number}-*.safetensors"))


def _reason(failures: Mapping[int, tuple[BaseException, object]]) -> str:
    number, (error, _) = min(failures.items(), key=lambda item: item[0])
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"process {number}: {str(told).splitlines()[0]}"
