"""Seeds that users did not choose."""

import secrets


def choose_seed(seed: int | None, count: int) -> int:
    """Return ``seed``, or a random one that is short to type and leaves room for ``count``."""
    return seed if seed is not None else secrets.randbelow(2**32 - min(count, 2**31))
