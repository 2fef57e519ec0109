"""Files with something changed at random."""

import os
import random
from collections.abc import Callable, Iterator

import pytest

from sd_checkpoint import CheckpointError

# How many mutated files of each kind: a few in passing, ten thousand where there is time.
NUMBERS = [
    int(os.environ.get("SD_FAULT_MUTATIONS", "300")),
    pytest.param(10_000, marks=pytest.mark.slow),
]


def refused(read: Callable[[], object]) -> bool:
    """Say whether reading is refused, which it must be in one line, rather than done."""
    try:
        read()
    except CheckpointError as error:
        message = str(error)
    else:
        return False
    assert message.isprintable(), message
    return True


def mutated(data: bytes, number: int, seed: int) -> Iterator[bytes]:
    """Yield `number` changed forms of `data`: the same for the same seed."""
    rng = random.Random(seed)
    for _ in range(number):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            _mutate(changed, rng)
        yield bytes(changed)


def _mutate(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    length = rng.choice((1, 1, 1, 2, 4, 8, 40))
    match rng.randrange(8):
        case 0 | 1:
            _write(data, at, bytes([rng.randrange(256)]))
        case 2:
            _write(data, at, bytes([(data[at : at + 1] or b"\0")[0] ^ 1 << rng.randrange(8)]))
        case 3:
            _write(data, at, rng.choice((b"\xff", b"\0", b"\x7f", b"\x80")) * length)
        case 4:
            data[at:at] = rng.randbytes(length)
        case 5:
            del data[at : at + length]
        case 6:
            data[at:at] = data[at : at + 8 * length]
        case 7:
            del data[at:]


def _write(data: bytearray, at: int, value: bytes) -> None:
    data[at : at + len(value)] = value[: max(0, len(data) - at)]
