"""The run: the arms load, warm up, are checked, and then take turns."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.agreement import OURS, PEER, read_output
from benchmarks.arms import missing
from benchmarks.case import Case, Turns
from benchmarks.orders import ArmFailed, ArmProcess, LeftOut
from benchmarks.resident import available
from benchmarks.spread import Round, there_and_back


@dataclass(slots=True)
class ArmResult:
    """Hold what was measured of one arm: bytes and seconds."""

    begun: dict[str, Any]
    first_run: float
    memory: dict[str, int]
    output: Tensor
    rounds: list[Round] = field(default_factory=list)


@dataclass(slots=True)
class Measured:
    """Hold what was measured of all; the arms that had no part are in `left_out`, with why."""

    arms: dict[str, ArmResult]
    left_out: dict[str, str]
    failed: dict[str, str]
    reference: Tensor | None
    peers_in_own: Tensor | None = None

    def compared(self, case: Case) -> tuple[Case, dict[str, Tensor], Tensor | None]:
        """Return the case in our type, outputs in it, and the peer in float32."""
        outputs = {name: arm.output for name, arm in self.arms.items()}
        if self.peers_in_own is None:
            return case, outputs, self.reference
        reference = outputs.get(PEER)
        ours = {name: output for name, output in outputs.items() if name.startswith(OURS)}
        return case.of(OURS), {**ours, PEER: self.peers_in_own}, reference


class TooLittleMemory(Exception):  # noqa: N818  (the name is what it is)
    """Say in one line that the arms cannot all be loaded, and what to do."""


def measure(case: Case, names: Sequence[str], turns: Turns) -> Measured:
    """Measure the arms of these names; outputs pass through files in the case's `scratch`.

    Raises `TooLittleMemory` where the arms do not fit beside one another.
    """
    if case.target == "train":
        _check_room_to_train(case)
    measured = Measured(arms={}, left_out={}, failed={}, reference=None)
    if {OURS, PEER} <= set(names) and missing(PEER) is None:
        _ask_peer_in_other_types(case, measured)
    with ExitStack() as stack:
        kept: dict[str, ArmProcess] = {}
        for name in names:
            if (gap := missing(name)) is not None:
                measured.left_out[name] = gap
                continue
            try:
                if not turns.fresh:
                    _check_room(name, measured)
                with ExitStack() as own:
                    process = own.enter_context(ArmProcess(name, case.of(name)))
                    measured.arms[name] = _checked(process, turns, Path(case.scratch))
                    if not turns.fresh:
                        kept[name] = process
                        stack.enter_context(own.pop_all())
            except LeftOut as reason:
                measured.left_out[name] = str(reason)
            except ArmFailed as reason:
                measured.failed[name] = str(reason)
        for _ in range(turns.rounds):
            _round(case, kept, turns, measured)
    return measured


def _round(case: Case, kept: dict[str, ArmProcess], turns: Turns, measured: Measured) -> None:
    """Let every arm run there and back; one that breaks is out of this round and all others."""
    found: dict[str, list[float]] = {name: [] for name in measured.arms}
    for name in there_and_back(list(measured.arms)):
        if name not in measured.arms:
            continue
        try:
            if turns.fresh:
                with ArmProcess(name, case.of(name)) as process:
                    for _ in range(1 + turns.warm_up):
                        process.ask("go")
                    found[name].append(process.ask("go")["seconds"])
            else:
                found[name].append(kept[name].ask("go")["seconds"])
        except (ArmFailed, LeftOut) as reason:
            measured.failed[name] = str(reason)
            del measured.arms[name]
    for name, result in measured.arms.items():
        result.rounds.append(tuple(found[name]))


def _checked(process: ArmProcess, turns: Turns, folder: Path) -> ArmResult:
    """Run an arm uncounted: first, for memory and output, and to settle after those."""
    path = folder / f"{process.arm}.safetensors"
    first = process.ask("go")["seconds"]
    memory = process.ask("check", path=str(path))["memory"]
    for _ in range(turns.warm_up):
        process.ask("go")
    return ArmResult(begun=process.begun, first_run=first, memory=memory, output=read_output(path))


def _ask_peer_in_other_types(case: Case, measured: Measured) -> None:
    """Let the peer compute what outputs are held to, where those are not all in float32."""
    if case.dtype != "fp32":
        measured.reference = _output_of_peer(replace(case, dtype="fp32"))
    elif case.own_dtype not in ("", "fp32"):
        measured.peers_in_own = _output_of_peer(case.of(OURS))


def _output_of_peer(case: Case) -> Tensor | None:
    """Return what the peer computes, one run; None where it cannot."""
    path = Path(case.scratch) / "reference.safetensors"
    try:
        with ArmProcess(PEER, case) as process:
            if case.target == "train":
                process.ask("go")  # the arms have learnt for a step when they are checked
            process.ask("check", path=str(path))
    except (LeftOut, ArmFailed):
        return None
    return read_output(path)


def _check_room_to_train(case: Case) -> None:
    """Raise `TooLittleMemory` when a single arm would not fit."""
    from benchmarks.learning import bytes_to_train

    free, needs = available(), bytes_to_train(case)
    if not case.on_cuda and free is not None and free < needs:
        raise TooLittleMemory(
            f"{free / 1e9:.1f} GB are free, and this training step needs about {needs / 1e9:.1f} "
            "GB: take a smaller --size, --width and --height, or --method lora"
        )


def _check_room(name: str, measured: Measured) -> None:
    """Raise `TooLittleMemory` when one more arm like those that are loaded would not fit."""
    needs = [arm.begun["weights"] + arm.memory.get("of_run", 0) for arm in measured.arms.values()]
    free = available()
    if needs and free is not None and free < max(needs) * 1.1:
        raise TooLittleMemory(
            f"{free / 1e9:.1f} GB are free and {name} needs about {max(needs) / 1e9:.1f} GB beside "
            "the arms that are loaded: add --fresh, or name fewer arms"
        )
