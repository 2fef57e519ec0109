"""Whatever a safetensors file holds, it is read or refused in one line."""

import tracemalloc
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sd_checkpoint import Checkpoint, CheckpointError
from tests.fault.corpus import Hostile, good_safetensors, names
from tests.fault.hostile_safetensors import CASES
from tests.fault.mutations import NUMBERS, mutated, refused


def read(path: Path) -> None:
    for tensor in Checkpoint.open(path).values():
        tensor.sum()


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_a_hostile_file_is_refused_in_one_line(case: Hostile, tmp_path: Path) -> None:
    path = case.at(tmp_path)
    with pytest.raises(CheckpointError, match=case.says) as caught:
        read(path)
    assert str(caught.value).isprintable()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_a_hostile_file_takes_little_more_memory_than_it_has_bytes(
    case: Hostile, tmp_path: Path
) -> None:
    path = case.at(tmp_path)
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * path.stat().st_size + 2**20


@pytest.mark.parametrize("number", NUMBERS)
def test_mutated_files_are_read_or_refused(tmp_path: Path, number: int) -> None:
    path = tmp_path / "a.safetensors"
    num_refused = 0
    for data in mutated(good_safetensors(), number, seed=number):
        path.write_bytes(data)
        num_refused += refused(lambda: read(path))
    assert number / 2 < num_refused < number


def test_what_is_read_of_a_mutated_file_is_what_the_library_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    same = 0
    for data in mutated(good_safetensors(), 300, seed=1):
        path.write_bytes(data)
        try:
            found = dict(Checkpoint.open(path))
        except CheckpointError:
            continue
        expected = safetensors.torch.load(data)
        assert found.keys() == expected.keys()
        for key, tensor in found.items():
            assert tensor.dtype == expected[key].dtype
            assert tensor.shape == expected[key].shape
            assert torch.equal(tensor.view(torch.uint8), expected[key].view(torch.uint8))
        same += 1
    assert same
