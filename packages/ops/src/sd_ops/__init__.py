"""The exact fast paths of the networks: attention behind one function."""

from sd_ops.attention import ATTENTION_BACKENDS, AttentionUnavailable, attention, resolve_backend

__all__ = ["ATTENTION_BACKENDS", "AttentionUnavailable", "attention", "resolve_backend"]
