"""The fast paths of the networks, exact but for int8 weights: attention, layers, activations."""

from sd_ops.activations import geglu, group_norm, norm_silu
from sd_ops.attention import ATTENTION_BACKENDS, AttentionUnavailable, attention, resolve_backend
from sd_ops.int8 import hold_as_int8, int8_keys, int8_values, quantized
from sd_ops.layers import Conv2d, Linear, lay_out_kernels, use_fast_paths
from sd_ops.memory import freed_memory_kept

__all__ = [
    "ATTENTION_BACKENDS",
    "AttentionUnavailable",
    "Conv2d",
    "Linear",
    "attention",
    "freed_memory_kept",
    "geglu",
    "group_norm",
    "hold_as_int8",
    "int8_keys",
    "int8_values",
    "lay_out_kernels",
    "norm_silu",
    "quantized",
    "resolve_backend",
    "use_fast_paths",
]
