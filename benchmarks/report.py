"""What was found, as JSON and as tables for people."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.agreement import Agreement
from benchmarks.calibration import Calibration
from benchmarks.case import Case, Turns
from benchmarks.machine import machine_facts
from benchmarks.measure import Measured
from benchmarks.spread import ratio, spread, times
from benchmarks.starts import Starts

Report = dict[str, Any]
_PLACES = ("folder", "scratch")  # nobody's business


def head(case: Case, size: str, turns: Turns) -> Report:
    """Return what was asked for, without paths, and what it ran on."""
    asked = {name: value for name, value in asdict(case).items() if name not in _PLACES}
    order = "A B B A, in fresh processes" if turns.fresh else "A B B A, all loaded"
    asked |= {"size": size, "rounds": turns.rounds, "warm_up": turns.warm_up, "order": order}
    return {"asked": asked, "machine": machine_facts(case)}


def run_report(
    measured: Measured, agreed: Agreement, calibration: Calibration, flop: int
) -> Report:
    """Return what was measured of computing."""
    first = next(iter(measured.arms.values()), None)
    floor = flop / calibration.best if calibration.best else None
    arms = {}
    for name, result in measured.arms.items():
        found = times(result.rounds)
        assert first is not None
        arms[name] = {
            "seconds": asdict(found),
            "rounds": [list(one) for one in result.rounds],
            "ratio_to_first": asdict(ratio(result.rounds, first.rounds)),
            "over_floor": found.median / floor if floor else None,
            "first_run_seconds": result.first_run,
            "memory_bytes": dict(result.memory),
            "weights_bytes": result.begun["weights"],
            "load_seconds": result.begun["load_seconds"],
            "threads": result.begun["threads"],
        }
    return {
        "calibration": {**asdict(calibration), "unit": "FLOP/s, and bytes/s of the copy"},
        "floor": {"flop": flop, "seconds": floor},
        "arms": arms,
        "left_out": measured.left_out,
        "failed": measured.failed,
        "correctness": asdict(agreed),
    }


def starts_report(starts: Starts) -> Report:
    """Return what was measured of beginning."""
    first = next(iter(starts.rounds.values()), None)
    arms: dict[str, dict[str, Any]] = {}
    for name, rounds in starts.rounds.items():
        assert first is not None
        arms[name] = {
            "seconds": asdict(times(rounds)),
            "rounds": [list(one) for one in rounds],
            "ratio_to_first": asdict(ratio(rounds, first)),
        }
        begins = starts.begins[name]
        if imports := [one.imports for one in begins if one.imports is not None]:
            arms[name]["import_seconds"] = asdict(spread(imports))
        if peaks := [one.peak for one in begins if one.peak is not None]:
            arms[name]["peak_over_weights"] = max(peaks)
    return {"arms": arms, "left_out": starts.left_out, "failed": starts.failed}


def show(report: Report, console: Console) -> None:
    """Print a report: what was asked, the table, what was left out, and whether it was the same."""
    asked, machine = report["asked"], report["machine"]
    console.print(_asked_words(asked), highlight=False)
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    flags = " ".join(machine["flags"])
    place = machine.get("gpu") or f"{machine['processor']}, {machine['cores']} cores ({flags})"
    console.print(f"{place}; {versions}", highlight=False)
    if "calibration" in report:
        console.print(_calibration_words(report), highlight=False)
    console.print(_table(report["arms"]))
    for name, reason in (*report["left_out"].items(), *report["failed"].items()):
        console.print(f"left out: {name}: {reason}", highlight=False, markup=False)
    if "correctness" in report:
        for line in _correctness_words(report["correctness"]):
            console.print(line, highlight=False, markup=False)


def _asked_words(asked: Mapping[str, Any]) -> str:
    if asked["target"] == "import":
        return f"import; {asked['rounds']} rounds of A B B A, fresh processes"
    own = f" (ours {asked['own_dtype']})" if asked["own_dtype"] else ""
    words = f"{asked['target']}, {asked['size']}, {asked['dtype']}{own} on {asked['device']}"
    if asked["target"] == "load":
        return f"{words}; {asked['rounds']} rounds of A B B A, fresh processes"
    steps = f", {asked['steps']} steps" if asked["target"] == "txt2img" else ""
    if asked["target"] == "train":
        steps = f", {asked['method']}{' with averaged weights' * asked['ema']}"
    return (
        f"{words}, {asked['width']} x {asked['height']}, batch {asked['batch']}{steps}; "
        f"{asked['rounds']} rounds of {asked['order']}; not counted of each: the first run, the "
        f"checked one, {asked['warm_up']} more"
    )


def _calibration_words(report: Report) -> str:
    found, floor = report["calibration"], report["floor"]
    rates = [
        f"{name} {found[name] / 1e9:.0f} {unit}"
        for name, unit in (("matmul", "GFLOP/s"), ("convolution", "GFLOP/s"), ("copy", "GB/s"))
        if found[name]
    ]
    seconds = f"{floor['seconds']:.4g} s" if floor["seconds"] else "unknown"
    return f"{', '.join(rates)}; floor of {floor['flop'] / 1e12:.4g} TFLOP: {seconds}"


def _table(arms: Mapping[str, Mapping[str, Any]]) -> Table:
    """Lay the arms out in rows; a column that no arm has is not there."""
    first = next(iter(arms), "the first")
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "seconds, median": lambda arm: f"{arm['seconds']['median']:.4g}",
        "least to greatest": lambda arm: _range(arm["seconds"], ".4g"),
        f"x {first}": lambda arm: f"{arm['ratio_to_first']['median']:.3f}",
        "over rounds": lambda arm: _range(arm["ratio_to_first"], ".3f"),
        "x floor": lambda arm: _number(arm, "over_floor", ".2f"),
        "first run, s": lambda arm: _number(arm, "first_run_seconds", ".3g"),
        "MB of a run": lambda arm: _megabytes(arm, "of_run"),
        "MB beyond weights": lambda arm: _megabytes(arm, "beyond_weights"),
        "imports, s": lambda arm: (
            f"{arm['import_seconds']['median']:.3g}" if "import_seconds" in arm else ""
        ),
        "peak / weights": lambda arm: _number(arm, "peak_over_weights", ".2f"),
    }
    cells = {title: [cell(arm) for arm in arms.values()] for title, cell in columns.items()}
    kept = {title: column for title, column in cells.items() if any(column)}
    table = Table("", *kept)
    for number, name in enumerate(arms):
        table.add_row(name, *(column[number] for column in kept.values()))
    return table


def _range(spread: Mapping[str, float], form: str) -> str:
    return f"{spread['least']:{form}} to {spread['greatest']:{form}}"


def _number(arm: Mapping[str, Any], name: str, form: str) -> str:
    return f"{arm[name]:{form}}" if arm.get(name) is not None else ""


def _megabytes(arm: Mapping[str, Any], name: str) -> str:
    memory: Mapping[str, int] = arm.get("memory_bytes", {})
    return f"{memory[name] / 1e6:.0f}" if name in memory else ""


def _correctness_words(found: Mapping[str, Any]) -> Sequence[str]:
    lines = [
        f"{name} against {found['against']}: largest {one['largest']:.2e} "
        f"({one['largest_over_std']:.1e} std), rms {one['rms']:.2e} ({one['rms_over_std']:.1e} std)"
        + (f", losses {one['loss']:.1e}" if "loss" in one else "")
        for name, one in found["differences"].items()
    ]
    verdict = {True: "the same", False: "NOT THE SAME", None: "unknown"}[found["passed"]]
    return [*lines, f"{verdict}: {found['rule']}"]
