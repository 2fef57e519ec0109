"""The fast paths of the networks, exact but for int8 weights: attention, layers, activations."""

from sd_ops.activations import geglu, group_norm, layer_norm, norm_silu
from sd_ops.attention import ATTENTION_BACKENDS, AttentionUnavailable, attention, resolve_backend
from sd_ops.compiling import (
    COMPILES_SINCE,
    blocks_of,
    compile_blocks,
    torch_release,
    with_room_for_variants,
)
from sd_ops.fused_layers import gated, residual
from sd_ops.fused_on_cuda import kernels_fused
from sd_ops.int8 import hold_as_int8, int8_keys, int8_values, quantized
from sd_ops.layers import Conv2d, Linear, lay_out_kernels, use_fast_paths
from sd_ops.memory import freed_memory_kept, give_back_freed
from sd_ops.tokenwise import Tokenwise

__all__ = [
    "ATTENTION_BACKENDS",
    "COMPILES_SINCE",
    "AttentionUnavailable",
    "Conv2d",
    "Linear",
    "Tokenwise",
    "attention",
    "blocks_of",
    "compile_blocks",
    "freed_memory_kept",
    "gated",
    "geglu",
    "give_back_freed",
    "group_norm",
    "hold_as_int8",
    "int8_keys",
    "int8_values",
    "kernels_fused",
    "lay_out_kernels",
    "layer_norm",
    "norm_silu",
    "quantized",
    "residual",
    "resolve_backend",
    "torch_release",
    "use_fast_paths",
    "with_room_for_variants",
]
