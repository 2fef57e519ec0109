"""The examples around the embedded model."""

import json
import runpy
from pathlib import Path

from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_contact_sheet_shows_each_prompt(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "sheet.png"
    main = runpy.run_path(str(EXAMPLES / "contact_sheet.py"))["main"]
    main(["--count", "5", "--columns", "2", "--model", str(tiny_model), "--out", str(out)])
    width, height = Image.open(out).size
    assert height > width  # three rows of two


def test_curves_of_several_runs_follow_each_other(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        lines = [
            json.dumps({"step": s, "time": 0.0, "train/loss": 1 / s, "train/learning_rate": 0.1})
            for s in (1, 2)
        ]
        (tmp_path / name / "scalars.jsonl").write_text("\n".join(lines))
    example = runpy.run_path(str(EXAMPLES / "training_curves.py"))
    runs = [tmp_path / "first", tmp_path / "second"]
    assert example["read_curves"](runs) == {"train/loss": ([1, 2, 3, 4], [1, 0.5, 1, 0.5])}
    out = tmp_path / "curves.png"
    example["main"]([*map(str, runs), "--out", str(out)])
    assert Image.open(out).format == "PNG"
    darkest, _ = Image.open(out).convert("L").getextrema()
    assert darkest < 100  # axes and a line, not an empty sheet
