"""An older torch is told which settings need a later one, and from which version on."""

from pathlib import Path

import pytest
import torch
from torch.torch_version import TorchVersion
from toy import ToyTask, config

from sd_train import TrainError
from sd_train.checkpoint_parts import has_parts, load_parts
from sd_train.compiling import compile_blocks
from sd_train.state import TrainState
from sd_train.torch_needed import SHARING, check_torch


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Return a patcher; torch says that it is 2.6."""
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.6.0+cpu"))
    return monkeypatch


def test_what_is_to_be_shared_out_is_refused_in_one_line(old: pytest.MonkeyPatch) -> None:
    old.setattr("sd_train.state.count", lambda: 2)
    with pytest.raises(TrainError) as told:
        TrainState.of(ToyTask(), config(parallel="fsdp"))
    assert str(told.value) == (
        "trainer.parallel = 'fsdp' needs torch 2.9, but this is 2.6.0+cpu; "
        "update torch, or set trainer.parallel = 'ddp'"
    )


@pytest.mark.usefixtures("old")
def test_one_process_shares_nothing_out_and_needs_no_later_torch() -> None:
    assert not TrainState.of(ToyTask(), config(parallel="fsdp")).is_sharded


@pytest.mark.usefixtures("old")
def test_a_checkpoint_in_parts_is_named_with_the_torch_that_reads_it(tmp_path: Path) -> None:
    (tmp_path / "shard-00001-model-00001-of-00001.safetensors").touch()
    assert has_parts(tmp_path)
    with pytest.raises(TrainError, match=r"a checkpoint in parts, needs torch 2\.9, .*; update"):
        load_parts(tmp_path, {}, {})


@pytest.mark.usefixtures("old")
def test_blocks_that_are_to_be_compiled_are_refused_in_one_line() -> None:
    with pytest.raises(TrainError, match=r"trainer\.compile = true needs torch 2\.7, but"):
        compile_blocks(ToyTask())


@pytest.mark.parametrize("version", ["2.9.0", "2.9.0a0+145a3a7bda", "2.10.1+cpu", "3.0.0"])
def test_that_version_and_every_later_one_will_do(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    check_torch(SHARING, "it")
