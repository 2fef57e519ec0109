"""Plot what training runs logged, one run after the other.

    python examples/training_curves.py runs/scenes-vae --out curves.png

Reads each run's `scalars.jsonl`; the steps of a run are counted on from the end of the one before.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

Curve = tuple[list[float], list[float]]

NOT_SHOWN = ("learning_rate", "images_per_second", "grad_norm", "loss_scale")


def read_curves(runs: Sequence[Path]) -> dict[str, Curve]:
    """Return steps and values of every scalar, in the order of their first appearance."""
    curves: dict[str, Curve] = {}
    before = last = 0
    for run in runs:
        for line in (run / "scalars.jsonl").read_text().splitlines():
            record = json.loads(line)
            last = before + record.pop("step")
            record.pop("time")
            for name, value in record.items():
                if name.split("/")[-1] not in NOT_SHOWN:
                    steps, values = curves.setdefault(name, ([], []))
                    steps.append(last)
                    values.append(value)
        before = last
    return curves


def plot(curves: dict[str, Curve], columns: int = 3) -> Figure:
    """Give every scalar its own axes."""
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.2 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    for axis, (name, (steps, values)) in zip(axes, curves.items(), strict=False):
        axis.set_axis_on()
        axis.plot(steps, values, linewidth=1)
        axis.set_title(name, fontsize=8)
        axis.tick_params(labelsize=7)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Plot the runs that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, in order")
    parser.add_argument("--out", type=Path, default=Path("curves.png"), help="the PNG to write")
    options = parser.parse_args(arguments)
    plot(read_curves(options.runs)).savefig(options.out, dpi=100)
    print(options.out)


if __name__ == "__main__":
    main()
