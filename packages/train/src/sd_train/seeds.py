"""Random numbers as a function of (seed, purpose, position): a resumed run draws the same."""

import hashlib

import torch


def derive_seed(seed: int, purpose: str, position: int) -> int:
    """Hash (seed, purpose, position) to a 63-bit seed; different purposes never share a stream."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{position}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_for(seed: int, purpose: str, position: int) -> torch.Generator:
    """Make the CPU generator that belongs to (seed, purpose, position)."""
    return torch.Generator("cpu").manual_seed(derive_seed(seed, purpose, position))
