"""Whatever a file of torch.save holds, nothing of it is run; it is read or refused in one line."""

import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

import sd_checkpoint
from sd_checkpoint import Checkpoint, CheckpointError, load_pickle
from sd_checkpoint.mapped import MappedFile
from sd_checkpoint.pickles import decode
from sd_checkpoint.restricted.index import make_index
from sd_checkpoint.restricted.values import RefusedError
from tests.fault.corpus import Call, Hostile, good_by_hand, good_legacy, good_zip, names, saved
from tests.fault.hostile_archives import CASES as ARCHIVES
from tests.fault.hostile_pickles import CASES as PICKLES
from tests.fault.mutations import NUMBERS, mutated, refused

CASES = [*PICKLES, *ARCHIVES]


def read(path: Path) -> None:
    for tensor in Checkpoint.open(path).values():
        tensor.sum()


def read_here(path: Path) -> None:
    """Do what is done apart in this process, which is much faster."""
    file = MappedFile(path)
    try:
        index = make_index(file.descriptor)
    except RefusedError as error:
        raise CheckpointError(str(error)) from error
    decode(index, file)


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_a_hostile_file_is_refused_in_one_line(case: Hostile, tmp_path: Path) -> None:
    path = case.at(tmp_path)
    with pytest.raises(CheckpointError, match=case.says) as caught:
        read(path)
    assert str(caught.value).isprintable()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("read_file", [Checkpoint.open, load_pickle])
def test_no_code_in_a_file_is_run(
    tmp_path: Path, new: bool, read_file: Callable[[Path], Any]
) -> None:
    harm = tmp_path / "harm"
    calls = [
        Call(os.mkdir, str(harm)),
        Call(eval, f"open({str(harm)!r}, 'w')"),
        Call(Path.touch, Path(harm)),
    ]
    for number, call in enumerate(calls):
        path = tmp_path / f"{number}.ckpt"
        path.write_bytes(saved({"a": torch.zeros(2), "b": call}, new=new))
        with pytest.raises(CheckpointError, match="which is code, not weights"):
            read_file(path)
    assert not harm.exists()
    with pytest.raises(OSError, match="harm"):  # so that this test can fail
        os.rmdir(harm)
    torch.load(tmp_path / "0.ckpt", weights_only=False)
    assert harm.exists()


CONFINED = """
import os, socket, subprocess, sys, threading
sys.path.append(sys.argv[1])
from restricted.jail import confine
assert confine() == "filter"
tries = {
    "open": lambda: open("/etc/passwd"),
    "write": lambda: open("harm", "w"),
    "mkdir": lambda: os.mkdir("harm"),
    "unlink": lambda: os.unlink(sys.argv[0]),
    "fork": os.fork,
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(os.getppid(), 0),
    "socket": socket.socket,
    "stderr": lambda: os.write(2, b"x"),
    "read": lambda: os.read(0, 1),
    "setuid": lambda: os.setuid(0),
}
left = []
for name, attempt in tries.items():
    try:
        attempt()
    except OSError:
        continue
    left.append(name)
try:
    threading.Thread(target=print).start()
    left.append("thread")
except RuntimeError:
    pass
os.write(1, repr(left).encode())
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_the_process_that_reads_can_do_nothing_else(tmp_path: Path) -> None:
    room = str(Path(sd_checkpoint.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", CONFINED, room],
        capture_output=True, cwd=tmp_path, stdin=subprocess.DEVNULL, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == b"[]"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("good", [good_zip, good_legacy, good_by_hand])
def test_mutated_files_are_read_or_refused(
    tmp_path: Path, good: Callable[[], bytes], number: int
) -> None:
    path = tmp_path / "a.ckpt"
    num_refused = 0
    for data in mutated(good(), number, seed=number):
        path.write_bytes(data)
        num_refused += refused(lambda: read_here(path))
    assert number / 10 < num_refused < number


@pytest.mark.parametrize("good", [good_zip, good_legacy])
def test_mutated_files_are_read_apart_or_refused(tmp_path: Path, good: Callable[[], bytes]) -> None:
    path = tmp_path / "a.ckpt"
    num_refused = 0
    for data in mutated(good(), 10, seed=7):
        path.write_bytes(data)
        num_refused += refused(lambda: read(path))
    assert 0 < num_refused < 10


LIES: dict[str, tuple[str, Any]] = {
    "beyond the file": ("storages", {"0": [0, 10**9]}),
    "before the file": ("storages", {"0": [-8, 16]}),
    "no place": ("storages", {"0": None}),
    "no storage": ("storages", {}),
    "beyond the storage": ("tensors", [["float32", [9], [1], "0", 0]]),
    "of a strange type": ("tensors", [["os.system", [1], [1], "0", 0]]),
    "no rows": ("tensors", 7),
    "another tensor": ("tree", ["tensor", 5]),
    "the last tensor": ("tree", ["tensor", -1]),
    "a strange mark": ("tree", ["exec", "1"]),
    "no pairs": ("tree", ["dict", [1, 2]]),
    "a key that is a list": ("tree", ["dict", [[["list", []], 1]]]),
    "no base64": ("tree", ["bytes", "?"]),
    "too deep": ("tree", eval("['list', [" * 90 + "]]" * 90)),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_lies_is_no_more_believed_than_the_file(tmp_path: Path, lie: str) -> None:
    (tmp_path / "a.ckpt").write_bytes(good_by_hand())
    file = MappedFile(tmp_path / "a.ckpt")
    index = make_index(file.descriptor)
    assert decode(index, file)["a"].tolist() == [0, 0, 0, 0]
    part, value = LIES[lie]
    with pytest.raises(CheckpointError, match="what it says of itself cannot be"):
        decode({**index, part: value}, file)


def test_a_child_that_dies_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.ckpt").write_bytes(good_by_hand())
    monkeypatch.setattr("sd_checkpoint.apart._SCRIPT", "import os; os.kill(os.getpid(), 11)")
    with pytest.raises(CheckpointError, match="gave no answer") as caught:
        Checkpoint.open(tmp_path / "a.ckpt")
    assert str(caught.value).isprintable()


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, Tensor):
        return (
            found.dtype == expected.dtype
            and found.stride() == expected.stride()
            and torch.equal(found.float(), expected.float())
        )
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[k], expected[k]) for k in expected)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == expected)


def whole_training_checkpoint(*, new: bool = True) -> dict[str, Any]:
    weight = torch.randn(4, 6)
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.randn(4, 6)}
    groups = [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0], "foreach": None}]
    young = {  # torch writes these types in the old format too, but cannot read them there
        "float8": weight.to(torch.float8_e4m3fn),
        "unsigned": torch.arange(3).to(torch.uint16),
    }
    return {
        "epoch": 3,
        "global_step": 2**40,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": OrderedDict(
            plain=weight,
            turned=weight.T,
            row=weight[1, ::2],
            parameter=nn.Parameter(weight[2:]),
            half=weight.half(),
            bfloat16=weight.bfloat16(),
            scalar=torch.tensor(7),
            empty=torch.empty(0, 5),
            truth=torch.tensor([True, False]),
            image=torch.randn(1, 4, 3, 3).to(memory_format=torch.channels_last),
            **nn.Linear(3, 2).state_dict(),
            **(young if new else {}),
        ),
        "optimizer_states": [{"state": {0: moments}, "param_groups": groups}],
        "scores": [0.5, -1, None, True, (1,), float("inf"), 10**30, "Ω", b"\xff"],
        "size": torch.Size([1, 2]),
    }


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_whole_training_checkpoint_is_read_as_torch_reads_it(tmp_path: Path, new: bool) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(saved(whole_training_checkpoint(new=new), new=new))
    expected = torch.load(path, weights_only=False)
    assert same(load_pickle(path), expected)
    checkpoint = Checkpoint.open(path)
    assert same(dict(checkpoint), dict(expected["state_dict"]))
    assert checkpoint.metadata["global_step"] == str(2**40)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_is_read(tmp_path: Path, protocol: int) -> None:
    value = whole_training_checkpoint()
    torch.save(value, tmp_path / "a.pt", pickle_protocol=protocol)
    assert same(load_pickle(tmp_path / "a.pt"), value)


def test_tensors_of_one_storage_are_views_of_one_memory(tmp_path: Path) -> None:
    weight = torch.zeros(2, 3)
    torch.save({"a": weight, "b": weight, "turned": weight.T}, tmp_path / "a.pt")
    read = Checkpoint.open(tmp_path / "a.pt")
    read["a"][0, 1] = 5
    assert read["b"][0, 1] == 5
    assert read["turned"][1, 0] == 5


LIGHTNING = "pytorch_lightning.callbacks.model_checkpoint"


@pytest.fixture
def callback(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class that pickles under the name of Lightning's."""
    parts = LIGHTNING.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    made = type("ModelCheckpoint", (), {"__module__": LIGHTNING})
    monkeypatch.setattr(sys.modules[LIGHTNING], "ModelCheckpoint", made, raising=False)
    return made


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_what_else_stands_in_files_of_the_field_is_passed_over_or_made_plain(
    tmp_path: Path, callback: type, new: bool
) -> None:
    value = {
        "callbacks": {callback: {"best": torch.tensor(0.25)}},
        "callback": callback(),
        "lr": numpy.float64(1e-4),
        "steps": numpy.int32(-258),
        "vectors": nn.ParameterDict({"*": nn.Parameter(torch.ones(2, 4))}),
        "device": torch.device("cpu"),
        "names": {"b", "a"},
    }
    (tmp_path / "a.pt").write_bytes(saved(value, new=new))
    read = load_pickle(tmp_path / "a.pt")
    assert read["callbacks"][f"{LIGHTNING}.ModelCheckpoint"]["best"] == 0.25
    assert read["callback"] is None
    assert (read["lr"], read["steps"]) == (1e-4, -258)
    assert read["vectors"]["*"].tolist() == [[1, 1, 1, 1]] * 2
    assert read["device"] is None
    assert sorted(read["names"]) == ["a", "b"]


def test_a_hypernetwork_keeps_its_numbered_layers(tmp_path: Path) -> None:
    layers = [{"linear.0.weight": torch.ones(2, 2)}, {"linear.0.weight": torch.zeros(2, 2)}]
    torch.save({768: tuple(layers), "step": 5}, tmp_path / "a.pt")
    read = load_pickle(tmp_path / "a.pt")
    assert read["step"] == 5
    assert read[768][0]["linear.0.weight"].tolist() == [[1, 1], [1, 1]]
    with pytest.raises(CheckpointError, match="holds no tensors by name, but 768, step"):
        Checkpoint.open(tmp_path / "a.pt")
