import subprocess
import sys

import pytest

from sd_ops import freed_memory_kept, give_back_freed
from sd_ops.memory import _glibc

# What is freed stays with the process, so the pages of its like are there already.
_PROGRAM = """
import resource, torch
from sd_ops import freed_memory_kept
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(2**24).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
print(min(faults() for _ in range(10)))
with freed_memory_kept() as kept:
    print(min(faults() for _ in range(10)))
print(resident() - before)
print(int(kept))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_pages_are_asked_for_once_and_given_back_in_the_end() -> None:
    command = [sys.executable, "-c", _PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, within, more, kept = map(int, done.stdout.split())
    assert kept
    assert within < 1000
    assert before > 10 * within
    assert more < 2**24  # of tensors of 2**26 bytes


# Every other of many is held, so that what is freed between lies in holes.
_HOLES = """
import torch
from sd_ops import freed_memory_kept, give_back_freed
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
with freed_memory_kept():
    made = [torch.ones(2**18) for _ in range(64)]
    full = resident()
    del made[::2]
    kept = resident()
    give_back_freed()
    print(full - kept, full - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_what_lies_in_holes_is_given_back() -> None:
    command = [sys.executable, "-c", _HOLES]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < 2**22
    assert after > 31 * 2**20  # of 32 tensors of 2**20 bytes


def test_elsewhere_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    _glibc.cache_clear()
    with freed_memory_kept() as kept:
        assert not kept
        give_back_freed()
    _glibc.cache_clear()
