"""The benchmark command: what it writes, what it leaves out, and when it fails."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.calibration import Calibration
from benchmarks.case import METHODS, RUNS
from benchmarks.command import main
from benchmarks.measure import ArmResult, Measured

OURS = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))


def measured(ours: torch.Tensor, **changes: object) -> Measured:
    """Return what two arms gave in one round."""
    begun = {"weights": 8, "load_seconds": 0.1, "threads": 1}
    arms = {
        name: ArmResult(
            begun=begun, first_run=0.2, memory={"of_run": 1}, output=output, rounds=[(0.1, 0.3)]
        )
        for name, output in (("ours", ours), ("diffusers", OURS))
    }
    values = {"arms": arms, "left_out": {}, "failed": {}, "reference": None, **changes}
    return Measured(**values)


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Return a patcher; the machine is taken to be as fast as it says here."""
    rates = Calibration(matmul=1e9, convolution=2e9, copy=None)
    monkeypatch.setattr("benchmarks.calibration.calibrate", lambda *_args, **_kwargs: rates)
    return monkeypatch


@pytest.mark.slow
def test_two_arms_draw_one_step_on_the_same_weights_and_agree(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    assert main(["step", "--size", "tiny", "--rounds", "1", "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    assert report["correctness"]["passed"] is True
    assert report["correctness"]["differences"]["ours"]["largest_over_std"] < 1e-5
    assert list(report["arms"]) == ["ours", "diffusers"]
    for arm in report["arms"].values():
        assert [len(times) for times in arm["rounds"]] == [2]
        assert 0 < arm["seconds"]["least"] <= arm["seconds"]["median"]
        assert arm["weights_bytes"] == report["arms"]["ours"]["weights_bytes"]
        assert arm["over_floor"] > 1
    assert report["arms"]["ours"]["ratio_to_first"]["median"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "further"), [*((method, ["--ema"]) for method in METHODS), ("lora", ["--uncached"])]
)
# All weights learn by our own convolutions, which round otherwise than torch's.
@pytest.mark.parametrize(("native", "apart"), [("0", 1e-6), ("1", 2e-6)])
def test_two_arms_learn_the_same_from_the_same_batch(
    tmp_path: Path,
    method: str,
    further: list[str],
    native: str,
    apart: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SD_OPS_NATIVE", native)
    path = tmp_path / "report.json"
    asked = ["train", "--size", "tiny", "--method", method, "--rounds", "1", *further]
    assert main([*asked, "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    weights = {name: arm["weights_bytes"] for name, arm in report["arms"].items()}
    # The peer holds the networks that it encodes with.
    assert (weights["diffusers"] > weights["ours"]) == ("--uncached" in further)
    assert report["correctness"]["passed"] is True
    assert report["correctness"]["differences"]["ours"]["loss"] < apart
    assert all("beyond_weights" in arm["memory_bytes"] for arm in report["arms"].values())


def test_a_training_step_for_which_memory_does_not_suffice_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = Calibration(matmul=1e9, convolution=2e9, copy=None)
    monkeypatch.setattr("benchmarks.calibration.calibrate", lambda *_args, **_kwargs: rates)
    monkeypatch.setattr("benchmarks.measure.available", lambda: 1000)
    with pytest.raises(SystemExit) as ended:
        main(["train", "--size", "tiny", "--method", "full"])
    assert ended.value.code == 1
    assert "this training step needs about" in capsys.readouterr().err


def test_an_arm_that_is_not_installed_is_named_and_left_out(
    canned: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    canned.setattr("benchmarks.measure.missing", lambda name: f"{name} is not installed")
    assert main(["step", "--size", "tiny", "--arms", "openvino"]) == 1  # nothing ran
    assert "left out: openvino: openvino is not installed" in capsys.readouterr().out


def test_a_report_names_neither_the_host_nor_a_path(
    canned: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    canned.setattr("benchmarks.measure.measure", lambda *_: measured(OURS))
    path = tmp_path / "report.json"
    assert main(["step", "--size", "tiny", "--json", str(path), "--folder", str(tmp_path)]) == 0
    text = path.read_text()
    assert socket.gethostname() not in text
    assert str(tmp_path) not in text
    assert json.loads(text)["floor"]["seconds"] == json.loads(text)["floor"]["flop"] / 2e9


def test_ours_that_computes_something_else_is_exit_code_1(
    canned: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    canned.setattr("benchmarks.measure.measure", lambda *_: measured(OURS + 0.01))
    assert main(["step", "--size", "tiny"]) == 1
    assert "NOT THE SAME" in capsys.readouterr().out


def test_ours_that_breaks_is_exit_code_1(
    canned: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = measured(OURS, failed={"ours": "RuntimeError: no [kernel]"})
    del broken.arms["ours"]
    canned.setattr("benchmarks.measure.measure", lambda *_: broken)
    assert main(["step", "--size", "tiny"]) == 1
    assert "left out: ours: RuntimeError: no [kernel]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--arms", "ours,theirs"], "theirs is no arm"),
        (["--width", "100"], "multiples of 8"),
        (["--rounds", "0"], "give 1 or more"),
        (["--warm-up", "-1"], "it must be 0 or more"),
        (["--device", "abacus"], "cpu and cuda are measured here"),
    ],
)
def test_what_cannot_be_asked_for_is_told_in_a_line(
    given: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["step", *given])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_the_help_lists_the_targets_and_imports_no_torch() -> None:
    code = (
        "import sys\nfrom benchmarks.command import parser\n"
        "print(parser().format_help())\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert all(target in done.stdout for target in RUNS)


def test_each_arm_may_compute_in_its_own_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.command._own_dtype", lambda _: "bf16")
    path = tmp_path / "report.json"
    asked = ["step", "--size", "tiny", "--rounds", "1", "--warm-up", "0", "--defaults"]
    assert main([*asked, "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    weights = {name: arm["weights_bytes"] for name, arm in report["arms"].items()}
    assert weights["ours"] < 0.6 * weights["diffusers"]  # two bytes a weight, and four
    found = report["correctness"]
    assert found["passed"] is True
    assert found["against"] == "diffusers in fp32"
    assert found["differences"]["diffusers"]["rms"] > 0  # what it is in bf16


@pytest.mark.parametrize("further", [["step", "--dtype", "bf16"], ["load"], ["import"]])
def test_defaults_have_no_type_of_their_own_beside(
    further: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*further, "--defaults"])
    assert "--defaults: it is for step, decode, txt2img, train" in capsys.readouterr().err
