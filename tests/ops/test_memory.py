import subprocess
import sys

import pytest

from sd_ops import keep_freed_memory

# What is freed stays with the process, so the pages of its like are there already.
_PROGRAM = """
import resource, sys, torch
from sd_ops import keep_freed_memory
kept = sys.argv[1] == "kept" and keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(2**24).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(kept, min(faults() for _ in range(10)))
"""


def run(how: str) -> tuple[str, int]:
    command = [sys.executable, "-c", _PROGRAM, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kept, number = done.stdout.split()
    return kept, int(number)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_pages_are_asked_for_once() -> None:
    kept, faults = run("kept")
    _, faults_otherwise = run("given back")
    assert kept == "True"
    assert faults < 1000
    assert faults_otherwise > 10 * faults


def test_elsewhere_it_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    keep_freed_memory.cache_clear()
    assert keep_freed_memory() is False
    keep_freed_memory.cache_clear()
