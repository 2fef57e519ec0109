"""Putting tensors into a module, all of them or none."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sd_checkpoint.errors import CheckpointError, name_keys
from sd_checkpoint.lazy import release

__all__ = ["load_into"]

_RELEASE_AFTER = 16 * 2**20  # bytes read between two releases of the source's memory


def load_into(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    what: str,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> None:
    """Load `tensors` into `module`, whose keys and shapes they must equal.

    A materialised module is moved to `device`, if one is given, and filled in place: optimizers
    keep their parameters, weights keep their memory format. A module on the meta device comes alive
    on `device`, or the CPU (buffers outside the state dict are its maker's affair). Floating
    tensors become `dtype`, or keep the module's when it is None. `what` names the file or the part
    in errors.

    Memory: tensors are read one by one and the file's pages given back on the way. A meta module's
    weights on the CPU that are in the file as they are wanted are not copied at all: they stay the
    file's pages, private to the module, read when they are first used and copied where they are
    first written to. So replacing the file does nothing to them, but whoever overwrites or
    truncates it in place, as none of our writers does, changes or kills the program that has it
    open. Tensors of a plain dict are copied: nothing is shared with their owner.

    Raises `CheckpointError` naming missing, unexpected and misshapen keys; the module is then
    untouched.
    """
    own = module.state_dict(keep_vars=True)
    _require_equal_keys(own, tensors, what)
    if any(slot.is_meta for slot in own.values()):
        found = _made(own, tensors, what, dtype, torch.device(device or "cpu"))
        module.to(dtype)  # buffers outside the state dict
        module.load_state_dict(found, assign=True)
    else:
        _require_equal_shapes(own, {key: tensors[key].shape for key in own}, what)
        module.to(device=device, dtype=dtype)
        _fill(module.state_dict(keep_vars=True), tensors)


def _fill(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    num_bytes = 0
    with torch.no_grad():
        for key, slot in own.items():
            tensor = tensors[key]
            slot.copy_(tensor)
            num_bytes = _count(num_bytes, tensor, tensors)
    release(tensors)


def _made(
    own: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    what: str,
    dtype: torch.dtype | None,
    device: torch.device,
) -> dict[str, Tensor]:
    """Return the module's tensors: those that fit as they are first, then the others, converted.

    In this order none of the pages that the conversions read lie in memory that the former keep.
    """
    wanted = {
        key: dtype if dtype is not None and slot.is_floating_point() else slot.dtype
        for key, slot in own.items()
    }
    is_private = release(tensors)
    shapes, found = {}, {}
    for key in own:
        tensor = tensors[key].detach()
        shapes[key] = tensor.shape
        if is_private and _fits(tensor, wanted[key], device):
            found[key] = tensor
    _require_equal_shapes(own, shapes, what)
    found = _apart(found)
    release(tensors)
    num_bytes = 0
    for key in (key for key in own if key not in found):
        tensor = tensors[key].detach()
        found[key] = tensor.to(
            device, wanted[key], copy=True, memory_format=torch.contiguous_format
        )
        num_bytes = _count(num_bytes, tensor, tensors)
    release(tensors)
    return found


def _fits(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> bool:
    return tensor.dtype == dtype and tensor.device == device and tensor.is_contiguous()


def _apart(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out tensors that share memory with another: a module's weights are each its own."""
    kept, end = {}, 0
    for key, tensor in sorted(found.items(), key=lambda item: item[1].data_ptr()):
        if tensor.data_ptr() >= end:
            kept[key] = tensor
            end = tensor.data_ptr() + tensor.nbytes
    return kept


def _count(num_bytes: int, tensor: Tensor, tensors: Mapping[str, Tensor]) -> int:
    """Return how many bytes have been read since the last release, which may be now."""
    num_bytes += tensor.nbytes
    if num_bytes < _RELEASE_AFTER:
        return num_bytes
    release(tensors)
    return 0


def _require_equal_keys(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str
) -> None:
    missing, unexpected = own.keys() - tensors.keys(), tensors.keys() - own.keys()
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing ({name_keys(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected ({name_keys(unexpected)})")
    if problems:
        raise CheckpointError(f"{what} does not fit the model: keys {', '.join(problems)}")


def _require_equal_shapes(
    own: Mapping[str, Tensor], found: Mapping[str, torch.Size], what: str
) -> None:
    wrong = [key for key, slot in own.items() if slot.shape != found[key]]
    if wrong:
        named = (f"{k} {tuple(found[k])} for {tuple(own[k].shape)}" for k in wrong)
        raise CheckpointError(
            f"{what} does not fit the model: {len(wrong)} keys of another shape "
            f"({name_keys(named)})"
        )
