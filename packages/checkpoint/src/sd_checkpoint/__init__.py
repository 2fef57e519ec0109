"""Tensor files: lazy safetensors, atomic writes and the key-map engine."""
