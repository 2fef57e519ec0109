"""LoRA files as the commands have them: opened in one layout, written with what was done."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdcli.errors import CommandError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sd_adapters import LoraInfo

_ALPHA = ".alpha"
_SECOND_TOWER = "text_encoder_2."  # SDXL alone has one
_SCALES = "lora_adapter_metadata"  # PEFT's; its alphas are tensors in kohya's layout
_COMMENT = "ss_training_comment"
# What is no longer true of other tensors. Readers compute a hash that is not there.
_HASHES = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")
_DTYPES = ("keep", "fp32", "fp16", "bf16")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraFile:
    """Hold a LoRA's file with its tensors in kohya's layout, whichever its own is.

    `info` describes it, with its own layout's name; `metadata` are the header's texts, but for
    scales that are alphas now.
    """

    path: Path
    info: "LoraInfo"
    tensors: "Mapping[str, Tensor]"
    metadata: Mapping[str, str]


def open_lora(path: Path, *, first_of_two: bool | None = None) -> LoraFile:
    """Open a LoRA's file of any layout, each tensor in the type that it has there.

    `first_of_two` says that diffusers' `text_encoder` is the first of SDXL's two; with None that is
    so if the file has the second. Raises `CommandError` for a file that holds none,
    `CheckpointError` for one that is broken, and what `describe_lora` raises.
    """
    from sd_adapters import describe_lora, from_diffusers, is_diffusers, with_text_model
    from sd_adapters.peft_config import with_config_beside
    from sd_checkpoint import Checkpoint

    file = Checkpoint.open(path)
    said = with_config_beside(path, file.metadata)
    tensors: Mapping[str, Tensor] = file
    layout = "kohya"
    if is_diffusers(file):
        layout = "diffusers"
        if first_of_two is None:
            first_of_two = any(key.startswith(_SECOND_TOWER) for key in file)
        tensors = from_diffusers(file, said, "lora_te1" if first_of_two else "lora_te")
    else:
        names = {key: with_text_model(key.partition(".")[0]) for key in file}
        if any(not key.startswith(f"{name}.") for key, name in names.items()):
            tensors = {f"{names[key]}.{key.partition('.')[2]}": file[key] for key in file}
    metadata = {_encodable(key): _encodable(text) for key, text in said.items()}
    info = replace(describe_lora(tensors, metadata), layout=layout)
    # Names go into other files' headers, and onto terminals.
    if not info.kinds.keys() - {"unknown"} or not all(key.isprintable() for key in tensors):
        raise CommandError(f"{path} holds no LoRA; give a file of kohya's or diffusers' layout")
    kept = {key: text for key, text in metadata.items() if key != _SCALES}
    return LoraFile(path=path, info=info, tensors=tensors, metadata=kept)


def check_target(out: Path, *, overwrite: bool, sources: Iterable[Path]) -> None:
    """Raise `CommandError` unless a LoRA may be written to `out`, which no source ever is."""
    if out.suffix != ".safetensors":
        raise CommandError(f"{out} ends in {out.suffix!r}; a LoRA's file is a .safetensors")
    require_free(out, overwrite=overwrite, sources=sources)


def require_free(out: Path, *, overwrite: bool, sources: Iterable[Path]) -> None:
    """Raise `CommandError` if `out` exists and may not be replaced, or is a source."""
    if any(out.resolve() == source.resolve() for source in sources):
        raise CommandError(f"{out} is a source itself; name another place")
    if out.exists() and not overwrite:
        raise CommandError(f"{out} exists; name another place or add --overwrite")


def stored_type(name: str) -> "torch.dtype | None":
    """Return what `--dtype` means, None for keep; raises `CommandError` for another word."""
    if name not in _DTYPES:
        raise CommandError(f"--dtype is {name!r}; it must be {', '.join(_DTYPES)}")
    from sd_pipeline import DTYPES

    return None if name == "keep" else DTYPES[name]


def common_type(files: "Iterable[Mapping[str, Tensor]]") -> "torch.dtype":
    """Return the type of all numbers of some files, float32 where there are several."""
    import torch

    found = {
        tensor.dtype
        for tensors in files
        for key in tensors
        if not key.endswith(_ALPHA) and (tensor := tensors[key]).is_floating_point()
    }
    return found.pop() if len(found) == 1 else torch.float32


def write_lora(
    out: Path,
    tensors: "Mapping[str, Tensor]",
    metadata: Mapping[str, str],
    *,
    dtype: "torch.dtype | None",
    done: str,
) -> "LoraInfo":
    """Write a LoRA of either layout, whole or not at all, and return what it is now.

    Weights become `dtype`, or keep their own when it is None. The header is `metadata` with rank
    and alpha as they are now and `done` before the training comment, and without hashes of what it
    was. Raises `CommandError` where a number is too large for `dtype`.
    """
    from sd_adapters import describe_lora
    from sd_checkpoint import save_safetensors

    stored = tensors if dtype is None else _as_type(tensors, dtype)
    info = describe_lora(stored, {})
    header = _header(info, metadata, done)
    save_safetensors(out, stored, header)
    return replace(info, metadata=header)


def _header(info: "LoraInfo", metadata: Mapping[str, str], done: str) -> dict[str, str]:
    is_plain = info.kinds.keys() == {"lora"} and not any(layer.is_dora for layer in info.layers)
    # A layer that says no alpha has its rank for one.
    alphas = {layer.rank if layer.alpha is None else layer.alpha for layer in info.layers}
    now = {
        "ss_network_module": "networks.lora" if is_plain else "lycoris.kohya",
        "ss_network_dim": _one(info.ranks),
        "ss_network_alpha": _one(alpha for alpha in alphas if alpha is not None),
    }
    kept = {key: text for key, text in metadata.items() if key not in _HASHES}
    if now["ss_network_dim"] != kept.get("ss_network_dim"):
        kept.pop("ss_network_args", None)  # says the convolutions' ranks, which are others now
    comment = kept.get(_COMMENT, "None")  # kohya's scripts write the word for none
    return {**kept, **now, _COMMENT: done if comment == "None" else f"{done}; {comment}"}


def _one(values: Iterable[float]) -> str:
    """Say the number that holds for every layer, or that there is none."""
    values = list(values)
    return f"{values[0]:g}" if len(values) == 1 else "Dynamic"


def _as_type(tensors: "Mapping[str, Tensor]", dtype: "torch.dtype") -> "dict[str, Tensor]":
    """Convert weights; an alpha stays, for rounded it would be another scale."""
    found = {}
    for key in tensors:
        tensor = tensors[key]
        if tensor.is_floating_point() and not key.endswith(_ALPHA):
            stored = tensor.to(dtype)
            if _greatest(stored) == math.inf > _greatest(tensor):
                raise CommandError(
                    f"{key} has numbers up to {_greatest(tensor):g}, too large for {dtype}; "
                    "add --dtype bf16 or --dtype fp32"
                )
            tensor = stored
        found[key] = tensor
    return found


def _greatest(tensor: "Tensor") -> float:
    return float(tensor.float().abs().max()) if tensor.numel() else 0.0


def _encodable(text: str) -> str:
    """Return a text with half characters escaped, which JSON has and no file of text."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
