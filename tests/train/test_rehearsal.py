"""A rehearsal says in one line where a step needs too much."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy import ToyTask, config

from sd_train import Batch, TrainError
from sd_train.rehearsal import rehearse


class Breaking(ToyTask):
    """A task of which a step does something that does not go well."""

    def __init__(self, does: Callable[[], object]) -> None:
        super().__init__()
        self.does = does

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        self.does()
        return super().loss(batch, generator)


def test_a_step_that_needs_too_much_memory_is_one_line_with_the_mend(tmp_path: Path) -> None:
    task = Breaking(lambda: torch.empty(2**50))
    with pytest.raises(TrainError, match=r"needs more memory than the .* lower it and") as caught:
        rehearse(task, config(), tmp_path)
    assert "\n" not in str(caught.value)


def test_other_errors_of_a_step_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="size of tensor"):
        rehearse(Breaking(lambda: torch.ones(2) + torch.ones(3)), config(), tmp_path)
