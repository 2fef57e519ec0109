"""Time one guided step against the picture's size, beside the number of its operations.

    uv run python -m benchmarks.sizes --folder models                  # 512 and 1024, float32
    uv run python -m benchmarks.sizes --folder models --dtype bf16 --arm diffusers

The folder is one that `python -m benchmarks step --size sd15 --folder models` has filled. The sizes
take turns in one process (A B B A), as a machine's speed changes; each round has its own ratio.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.arms import Run, make_arm
from benchmarks.case import DTYPES, Case
from benchmarks.flops import count_flops
from benchmarks.inputs import make_inputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--model", default="sd15", help="the folder's model")
    parser.add_argument("--arm", choices=("ours", "diffusers"), default="ours")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--sides", type=int, nargs=2, default=(512, 1024))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()

    with TemporaryDirectory() as scratch:
        small = Case(
            target="step",
            folder=str(given.folder / given.model),
            scratch=scratch,
            width=given.sides[0],
            height=given.sides[0],
            dtype=given.dtype,
        )
        large = replace(small, width=given.sides[1], height=given.sides[1])
        arm = make_arm(given.arm, "step")
        arm.imports(small)
        arm.load(small)
        with torch.inference_mode():
            runs = [arm.prepare(case, make_inputs(case)) for case in (small, large)]
            for run in runs:
                run()  # to settle
            found = [_round(*runs) for _ in range(given.rounds)]
        ratios = [statistics.mean(second) / statistics.mean(first) for first, second in found]
        work = count_flops(large) / count_flops(small)
    seconds = [statistics.median(chain.from_iterable(times)) for times in zip(*found, strict=True)]
    print(
        json.dumps(
            {
                "arm": given.arm,
                "dtype": given.dtype,
                "sides": given.sides,
                "seconds": [round(one, 3) for one in seconds],
                "ratio": round(statistics.median(ratios), 2),
                "ratios": [round(one, 2) for one in ratios],
                "ratio_of_operations": round(work, 2),
            }
        )
    )


def _round(small: Run, large: Run) -> tuple[list[float], list[float]]:
    """Return the seconds of small, large, large, small."""
    first, second, third, fourth = map(_seconds, (small, large, large, small))
    return [first, fourth], [second, third]


def _seconds(run: Run) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
