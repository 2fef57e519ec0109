"""Kill a training run -9 at random moments, go on each time, and compare it with one left alone.

    uv run python benchmarks/kills.py --processes 1 --kills 100 --in-save 30 --seed 0
    uv run python benchmarks/kills.py --processes 2 --kills 100 --in-save 30 --seed 0
    uv run python benchmarks/kills.py --processes 2 --parallel fsdp

A tiny net with dropout learns, with averages, warm-up, accumulation and AdamW, and saves every
third step. At random steps all its processes are killed, or of two sometimes only one; `--in-save`
of the times they die in the middle of a save, with one of its files half written or not at all.
Told is how many steps each kill has cost: those since the last save and no more. At the end
weights, averages, optimizer and position are held against the straight run's, bit for bit. The exit
code is 1 where anything is amiss.

`tests/train/test_nothing_is_lost.py` and `test_processes.py` kill by the same code, of one seed.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from random import Random

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/train"))

from interrupted import Kill, ToyRun, kills  # noqa: E402
from toy import differences  # noqa: E402

STEPS_PER_KILL = 15


def main() -> int:
    """Kill, compare, tell; return the exit code."""
    options = _options()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        runs = [
            ToyRun(
                folder=Path(place) / name,
                steps=STEPS_PER_KILL * options.kills + 30,
                processes=options.processes,
                parallel=options.parallel,
            )
            for name in ("straight", "killed")
        ]
        straight, killed = runs
        straight.finish()
        print(f"the straight run: {straight.steps} steps, {time.monotonic() - began:.0f} s")
        done, wrong = _killed(killed, options)
        killed.finish()
        if killed.half_saved:
            wrong.append(f"left behind: {killed.half_saved[0].name}")
        wrong += [f"not the same: {name}" for name in differences(straight.last, killed.last)]
    for line in wrong:
        print(f"wrong: {line}")
    print(_summary(options, done, wrong, time.monotonic() - began))
    return 1 if wrong else 0


def _killed(run: ToyRun, options: argparse.Namespace) -> tuple[list[Kill], list[str]]:
    done: list[Kill] = []
    wrong: list[str] = []
    random = Random(options.seed)
    for kill in kills(run, options.kills, random, in_save=options.in_save):
        done.append(kill)
        wrong += [f"kill {len(done)}: {line}" for line in kill.faults(run)]
        where = "in a save" if kill.in_save else "between saves"
        whom = "all killed"
        if kill.others_ended is not None:
            whom = "one killed, the other " + ("ended" if kill.others_ended else "had to be, too")
        print(
            f"kill {len(done):3}: step {kill.reached:5} {where:13} goes on from {kill.saved:5}, "
            f"{kill.lost} lost, {whom if run.processes > 1 else ''}".rstrip(", "),
            flush=True,
        )
    in_save = sum(kill.in_save for kill in done)
    if in_save < options.in_save:
        wrong.append(f"{in_save} died inside a save, {options.in_save} were to")
    return done, wrong


def _summary(
    options: argparse.Namespace, done: list[Kill], wrong: list[str], seconds: float
) -> str:
    lost = [kill.lost for kill in done]
    alone = sum(kill.others_ended is not None for kill in done)
    whose = f", {alone} of one process alone" if options.processes > 1 else ""
    end = "not as the straight run's" if wrong else "the same bits at the end"
    in_save = sum(kill.in_save for kill in done)
    return (
        f"{'FAILED' if wrong else 'passed'}: {options.processes} x {options.parallel}, seed "
        f"{options.seed}: {len(done)} kills, {in_save} in a save{whose}; "
        f"{max(lost, default=0)} steps lost at most, {sum(lost)} in all; {end} ({seconds:.0f} s)"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--processes", type=int, choices=(1, 2), default=1)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument(
        "--in-save", type=int, default=30, help="how many of the kills are in saves"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parallel", choices=("ddp", "fsdp"), default="ddp")
    options = parser.parse_args()
    if not 0 <= options.in_save <= options.kills:
        parser.error(f"--in-save {options.in_save} is not within the {options.kills} --kills")
    return options


if __name__ == "__main__":
    sys.exit(main())
