"""The S-curve example learns an S and draws it."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "s_curve.py"


def test_a_short_run_already_finds_the_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.png"
    main = runpy.run_path(str(EXAMPLE))["main"]
    main(["--steps", "1000", "--out", str(out), "--seed", "3"])
    assert out.read_bytes().startswith(b"\x89PNG")
    apart = re.search(r"points lie ([\d.]+) from the S", capsys.readouterr().out)
    assert apart is not None
    # Standard normal points lie 0.32 from it on average, points of the S itself 0.007.
    assert float(apart[1]) < 0.2
