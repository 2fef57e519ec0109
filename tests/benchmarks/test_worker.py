"""What a worker says of itself."""

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.arms import missing
from benchmarks.case import Case
from benchmarks.inputs import make_inputs
from benchmarks.models import folder_of
from benchmarks.resident import Meter, resident
from benchmarks.worker import _obey, _touch, without_paths


def test_a_fault_is_one_line_without_paths() -> None:
    def breaks() -> dict[str, object]:
        raise RuntimeError("cannot open /home/somebody/model.bin: no such file\nand more")

    answer = _obey(breaks, {})
    assert answer == {"failed": "RuntimeError: cannot open (a path): no such file"}


def test_what_is_no_path_stays() -> None:
    assert without_paths("12 samples/s, and/or 3 of 4") == "12 samples/s, and/or 3 of 4"


def test_weights_are_counted_in_the_bytes_of_their_type() -> None:
    network = nn.Linear(3, 5)
    assert _touch([network]) == 4 * (3 * 5 + 5)
    assert _touch([network.to(torch.bfloat16)]) == 2 * (3 * 5 + 5)


def test_every_process_is_given_the_same_numbers(tmp_path: Path) -> None:
    folder = folder_of("tiny", tmp_path)
    case = Case(target="step", folder=str(folder), width=64, height=128, batch=2)
    first, again = make_inputs(case), make_inputs(case)
    assert first.pair.shape == (4, 4, 16, 8)
    assert first.states.shape == (4, 12, 32)
    assert torch.equal(first.pair, again.pair)
    assert torch.equal(first.states, again.states)
    alone = make_inputs(Case(target="step", folder=str(folder), width=64, height=128))
    assert torch.equal(alone.latents, first.latents[:1])  # a picture's own, whatever the batch


def test_a_model_is_made_once(tmp_path: Path) -> None:
    weights = folder_of("tiny", tmp_path) / "unet" / "diffusion_pytorch_model.safetensors"
    made = weights.stat().st_mtime_ns
    folder_of("tiny", tmp_path)
    assert weights.stat().st_mtime_ns == made


@pytest.mark.skipif(resident() is None, reason="this system does not tell what is resident")
def test_the_peak_of_a_run_is_what_it_held_at_once() -> None:
    meter, size = Meter(on_cuda=False), 2**26

    def run() -> torch.Tensor:
        held = torch.ones(size // 4)
        return held.sum()

    _, memory = meter.peak_of(run, weights=0)
    assert memory == {} or abs(memory["of_run"] - size) < size / 4


def test_what_is_installed_is_not_missing() -> None:
    assert missing("ours") is None
