"""Putting tensors into a module, all of them or none."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sd_checkpoint.errors import CheckpointError, name_keys

__all__ = ["load_into"]


def load_into(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    what: str,
    dtype: torch.dtype | None = None,
) -> None:
    """Load `tensors` into `module`, whose keys and shapes they must equal.

    A materialised module is filled in place: optimizers keep their parameters, weights keep their
    device and memory format. A module on the meta device gets memory of its own on the CPU (buffers
    outside the state dict are its maker's affair). Floating tensors become `dtype`, or keep the
    module's when it is None. `what` names the file or the part in errors.
    Raises `CheckpointError` naming missing, unexpected and misshapen keys; the module is then
    untouched.
    """
    own = module.state_dict(keep_vars=True)
    _require_equal_keys(own, tensors, what)
    found = {key: tensors[key] for key in own}
    _require_equal_shapes(own, found, what)
    if dtype is not None:
        module.to(dtype)
        own = module.state_dict(keep_vars=True)
    on_meta = any(slot.is_meta for slot in own.values())
    if on_meta:
        # Copied, for a tensor of a lazy checkpoint is a view of the file.
        found = {key: t.detach().to("cpu", own[key].dtype, copy=True) for key, t in found.items()}
    module.load_state_dict(found, assign=on_meta)


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
    own: Mapping[str, Tensor], found: Mapping[str, Tensor], what: str
) -> None:
    wrong = [key for key, slot in own.items() if slot.shape != found[key].shape]
    if wrong:
        named = (f"{k} {tuple(found[k].shape)} for {tuple(own[k].shape)}" for k in wrong)
        raise CheckpointError(
            f"{what} does not fit the model: {len(wrong)} keys of another shape "
            f"({name_keys(named)})"
        )
