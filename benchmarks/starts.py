"""How long it takes to begin: imports, and loading a model, in fresh processes that take turns."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from types import MappingProxyType

from benchmarks.arms import missing
from benchmarks.case import Case
from benchmarks.orders import ArmFailed, ArmProcess, LeftOut
from benchmarks.spread import Round, there_and_back

_ARMS = ("ours", "diffusers")
_PROGRAM = ("-c", "from sdcli.main import main; main()")
_ONE_STEP = ("txt2img", "a cat on a mat", "--steps", "1", "--seed", "1", "--out", "one.png")

# What a user writes first; each is a whole process, the interpreter's start included.
_IMPORTS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "ours": ("-c", "from sd_pipeline import Pipeline"),
        "diffusers": ("-c", "from diffusers import StableDiffusionPipeline"),
        "torch alone": ("-c", "import torch"),
        "nothing": ("-c", ""),
        "sdcli --help": (*_PROGRAM, "--help"),
        "a picture of one step": (*_PROGRAM, *_ONE_STEP),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Begin:
    """Hold one beginning: seconds; of a load also those of its imports, and its peak over weights.

    The imports are those beyond torch's. The peak counts what came after them.
    """

    seconds: float
    imports: float | None = None
    peak: float | None = None


@dataclass(slots=True)
class Starts:
    """Hold what was measured, by name, and why others were not."""

    rounds: dict[str, list[Round]] = field(default_factory=dict)
    begins: dict[str, list[Begin]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def measure_imports(names: Sequence[str], rounds: int) -> Starts:
    """Time whole processes that import one thing, and what they are made of."""
    left_out = {name: f"it imports what {_like(name)} does" for name in names if name not in _ARMS}
    rows = [name for name in names if name in _ARMS]
    rows += [name for name in _IMPORTS if name not in _ARMS]
    return _in_turns(rows, rounds, _import, Starts(left_out=left_out))


def measure_loads(case: Case, names: Sequence[str], rounds: int) -> Starts:
    """Time the loading of a whole model, until every page of its weights was read once."""
    left_out = {name: f"it loads as {_like(name)} does" for name in names if name not in _ARMS}
    left_out |= {name: gap for name in names if (gap := missing(name)) and name in _ARMS}
    rows = [name for name in names if name not in left_out]
    return _in_turns(rows, rounds, lambda name: _load(name, case), Starts(left_out=left_out))


def _like(name: str) -> str:
    """Return the arm whose start another's is."""
    return "ours" if name.startswith("ours") else "diffusers"


def _in_turns(
    rows: Sequence[str], rounds: int, begin: Callable[[str], Begin], found: Starts
) -> Starts:
    """Begin each once uncounted, which warms the page cache, and then in turns."""
    for name in rows:
        try:
            begin(name)
        except LeftOut as reason:
            found.left_out[name] = str(reason)
        except ArmFailed as reason:
            found.failed[name] = str(reason)
        else:
            found.rounds[name], found.begins[name] = [], []
    for _ in range(rounds):
        for name in there_and_back(list(found.rounds)):
            found.begins[name].append(begin(name))
    for name, begins in found.begins.items():
        # There and back: the two of a round lie together in each arm's own list.
        pairs = zip(begins[::2], begins[1::2], strict=True)
        found.rounds[name] = [(there.seconds, back.seconds) for there, back in pairs]
    return found


def _import(name: str) -> Begin:
    command = [sys.executable, *_IMPORTS[name]]
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=600
        )
        seconds = time.perf_counter() - started
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ArmFailed(lines[-1] if lines else f"it ended with {done.returncode}")
    return Begin(seconds=seconds)


def _load(name: str, case: Case) -> Begin:
    with ArmProcess(name, case) as process:
        begun = process.begun
    peak = begun["load_peak"]
    return Begin(
        seconds=begun["load_seconds"],
        imports=begun["import_seconds"],
        peak=None if peak is None else peak / begun["weights"],
    )
