"""The exact fast paths of the networks: attention, linear layers, convolutions, activations."""

from sd_ops.activations import geglu, norm_silu
from sd_ops.attention import ATTENTION_BACKENDS, AttentionUnavailable, attention, resolve_backend
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
    "lay_out_kernels",
    "norm_silu",
    "resolve_backend",
    "use_fast_paths",
]
