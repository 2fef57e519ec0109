"""The sheet of what finetuners made."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sd_train.finetune_config import LoraTrainConfig, TextualInversionConfig
from sd_train.run import run

EXAMPLE = Path(__file__).parents[2] / "examples" / "finetuned.py"


@pytest.fixture
def runs(tiny_model: Path, tmp_path: Path) -> list[str]:
    random = np.random.default_rng(0)
    (tmp_path / "cat").mkdir()
    for i in range(3):
        pixels = random.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "cat" / f"{i}.png")
    values = {
        "model": str(tiny_model),
        "data": {"folder": str(tmp_path / "cat"), "size": 64},
        "trainer": {"steps": 1, "device": "cpu", "tensorboard": False},
        "samples": {"count": 0},
    }
    folders = []
    for kind in (LoraTrainConfig, TextualInversionConfig):
        folders.append(tmp_path / str(kind.model_fields["method"].default))
        run(kind.model_validate(values), folders[-1])
    return [str(folder) for folder in folders]


def test_a_row_a_run_and_the_pictures_learnt_from_on_top(runs: list[str], tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    runpy.run_path(str(EXAMPLE))["main"]([*runs, "--out", str(out)])
    width, height = Image.open(out).size
    assert width > 7 * 64
    assert height > 3 * 64


def test_another_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run"):
        runpy.run_path(str(EXAMPLE))["main"]([str(tmp_path)])
