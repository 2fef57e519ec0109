"""The numbers that a model is drawn with."""

from collections.abc import Mapping
from types import MappingProxyType

import torch

from sd_ops.limits import processor
from sd_ops.native.library import why_not_native
from sd_pipeline.errors import PipelineError
from sd_unet import BackboneConfig, UNetConfig

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
)
_MANY_CHANNELS = 1024
_UNITS = ("avx512_bf16", "amx_tile")  # of processors, as torch.cpu calls them


def resolve_dtype(
    name: str, device: torch.device, network: BackboneConfig | None = None
) -> torch.dtype:
    """Return the dtype called ``name``, which "auto" leaves to the device and the network.

    That is fp16 on CUDA; bf16 for a large network on a processor that is no slower in it; else
    fp32. Large is a network of 1,024 channels or more, as Stable Diffusion's are. There a step
    takes two thirds of the time where bfloat16 is multiplied faster, and the weights half the
    memory. A small one is quick as it is, and its pictures stay the same to the digit on every
    machine. Raises ``PipelineError`` for another name.
    """
    if name == "auto":
        if device.type == "cuda":
            return torch.float16
        large = network is not None and _num_channels(network) >= _MANY_CHANNELS
        quick = device.type == "cpu" and _is_quick_in_bfloat16()
        return torch.bfloat16 if large and quick else torch.float32
    if name not in DTYPES:
        raise PipelineError(f"dtype is {name!r}; it must be auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def name_of(dtype: torch.dtype) -> str:
    """Return what ``resolve_dtype`` calls a dtype."""
    return next(name for name, one in DTYPES.items() if one == dtype)


def _num_channels(network: BackboneConfig) -> int:
    if isinstance(network, UNetConfig):
        return max(network.block_out_channels)
    return network.channels


def _is_quick_in_bfloat16() -> bool:
    """Tell whether this processor has products of bfloat16, in AVX-512 or in tiles (AMX).

    Where it has none they are done in float32, one conversion after the other, and slower. Where
    they take twice float32's time our own kernels do without, and torch's would not.
    """
    known = (getattr(torch.cpu, f"_is_{unit}_supported", None) for unit in _UNITS)
    if not any(asked is not None and asked() for asked in known):
        return False
    return processor() != "avx512_fp16" or why_not_native(torch.bfloat16) is None
