"""Arms that take turns, with workers that compute nothing: who is asked when, who is left out."""

import sys
from pathlib import Path

import pytest

from benchmarks.case import Case, Turns
from benchmarks.measure import TooLittleMemory, measure

# Does as a worker, notes each order, and says that it took a second. One called openvino cannot
# run, and diffusers-compiled breaks at its fifth `go`.
_WORKER = """
import json, os, sys
import numpy as np
from safetensors.numpy import save_file
goes = 0
for line in sys.stdin:
    order = json.loads(line)
    do, answer = order["do"], {"seconds": 1.0}
    if do == "begin":
        arm, scratch = order["arm"], order["case"]["scratch"]
        answer = {"weights": 100, "load_seconds": 1.0, "threads": 1}
        if arm == "openvino":
            answer = {"cannot": "it is asleep"}
    elif do == "check":
        save_file({"output": np.zeros(3, np.float32)}, order["path"])
        answer = {"memory": {"of_run": 10}}
    else:
        goes += 1
        if arm == "diffusers-compiled" and goes == 5:
            print("out of luck", file=sys.stderr)
            sys.exit(3)
    with open(os.path.join(scratch, "orders.txt"), "a") as file:
        file.write(f"{arm} {do} {os.getpid()}\\n")
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Case:
    monkeypatch.setattr("benchmarks.orders.WORKER", (sys.executable, "-c", _WORKER))
    monkeypatch.setattr("benchmarks.measure.missing", lambda _name: None)
    monkeypatch.setattr("benchmarks.measure.available", lambda: 10**9)
    return Case(target="step", folder="", scratch=str(tmp_path), width=64, height=64)


def orders(case: Case) -> list[list[str]]:
    return [line.split() for line in (Path(case.scratch) / "orders.txt").read_text().splitlines()]


def test_arms_warm_up_one_by_one_and_then_take_turns_there_and_back(case: Case) -> None:
    measured = measure(case, ["ours", "diffusers"], Turns(rounds=2, warm_up=1))
    told = [f"{arm} {do}" for arm, do, _ in orders(case)]
    before = ["begin", "go", "check", "go"]
    assert told[:8] == [f"{arm} {do}" for arm in ("ours", "diffusers") for do in before]
    assert told[8:] == ["ours go", "diffusers go", "diffusers go", "ours go"] * 2
    assert {name: arm.rounds for name, arm in measured.arms.items()} == {
        "ours": [(1.0, 1.0)] * 2,
        "diffusers": [(1.0, 1.0)] * 2,
    }
    assert len({process for _, _, process in orders(case)}) == 2


def test_fresh_is_a_new_process_for_every_turn(case: Case) -> None:
    measure(case, ["ours", "diffusers"], Turns(rounds=1, fresh=True))
    assert len({process for _, _, process in orders(case)}) == 2 + 4


def test_an_arm_that_cannot_run_is_left_out_with_its_reason(case: Case) -> None:
    measured = measure(case, ["openvino", "ours"], Turns(rounds=1))
    assert measured.left_out == {"openvino": "it is asleep"}
    assert list(measured.arms) == ["ours"]


def test_an_arm_that_breaks_is_named_and_the_others_go_on(case: Case) -> None:
    measured = measure(case, ["ours", "diffusers-compiled"], Turns(rounds=3))
    assert measured.failed == {"diffusers-compiled": "its process ended with 3: out of luck"}
    assert len(measured.arms["ours"].rounds) == 3


def test_arms_that_do_not_fit_beside_one_another_are_told_to_go_fresh(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.measure.available", lambda: 100)
    with pytest.raises(TooLittleMemory, match="add --fresh"):
        measure(case, ["ours", "diffusers"], Turns(rounds=1))
    assert len(measure(case, ["ours", "diffusers"], Turns(rounds=1, fresh=True)).arms) == 2


def test_half_precision_is_held_against_the_peer_in_float32(case: Case) -> None:
    half = Case(target="step", folder="", scratch=case.scratch, width=64, height=64, dtype="bf16")
    measured = measure(half, ["ours", "diffusers"], Turns(rounds=1))
    assert measured.reference is not None
    assert [f"{arm} {do}" for arm, do, _ in orders(case)][:2] == [
        "diffusers begin",
        "diffusers check",
    ]
