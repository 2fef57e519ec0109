"""What the approximate options trade: the time of a picture, and how far it is from the exact one.

    uv run python benchmarks/approximate.py                       # the embedded model
    uv run python benchmarks/approximate.py --model FOLDER --width 512 --height 512

Each way draws the same seeds, all ways taking turns; the first is exact, and what the others are
compared to. dB is the pictures' peak signal-to-noise ratio against it: 40 is hardly to be seen, 20
is another picture of the same thing.
"""

import argparse
import math
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from sd_pipeline import Picture, Pipeline, Txt2Img
from sd_sampler import GuidanceOptions

WAYS: Mapping[str, Mapping[str, Any]] = {
    "exact": {},
    "--reuse-features 2": {"reuse_features": 2},
    "--reuse-features 3": {"reuse_features": 3},
    "--reuse-features 5": {"reuse_features": 5},
    "--merge-tokens 0.25": {"merge_tokens": 0.25},
    "--merge-tokens 0.5": {"merge_tokens": 0.5},
    "--guidance-interval 0.1:0.8": {"guidance": GuidanceOptions(interval=(0.1, 0.8))},
    "--int8": {},
    "bf16": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder or file; default: the embedded model")
    parser.add_argument("--prompt", default="a red circle above a blue square")
    parser.add_argument("--width", type=int)
    parser.add_argument("--height", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--count", type=int, default=4, help="pictures of each way; default: 4")
    parser.add_argument("--tiny-vae", help="a tiny autoencoder made for the model: another way")
    arguments = parser.parse_args()
    model = arguments.model or _embedded()
    exact = Pipeline.load(model, dtype="fp32")
    others = {
        "--int8": Pipeline.load(model, dtype="fp32", int8=True),
        "bf16": Pipeline.load(model, dtype="bf16"),
    }
    ways = dict(WAYS)
    if arguments.tiny_vae is not None:
        ways["--tiny-vae"] = {}
        others["--tiny-vae"] = exact.with_tiny_vae(arguments.tiny_vae)
    drawn: dict[str, list[Picture]] = {way: [] for way in ways}
    for number in range(arguments.count + 1):
        for way, settings in ways.items():
            request = Txt2Img(
                prompt=arguments.prompt,
                width=arguments.width,
                height=arguments.height,
                num_steps=arguments.steps,
                seed=max(number, 1),
                **settings,
            )
            pictures = list(others.get(way, exact).txt2img(request))
            if number:  # the first is to warm up
                drawn[way] += pictures
    Console(width=100).print(_table(drawn))


def _table(drawn: Mapping[str, list[Picture]]) -> Table:
    table = Table("way", "seconds a picture", "x as fast", "dB, median", "dB, worst")
    exact = drawn["exact"]
    usual = statistics.median(picture.seconds for picture in exact)
    for way, pictures in drawn.items():
        seconds = statistics.median(picture.seconds for picture in pictures)
        ratios = [_decibels(one, other) for one, other in zip(pictures, exact, strict=True)]
        table.add_row(
            way,
            f"{seconds:.2f}",
            f"{usual / seconds:.2f}",
            f"{statistics.median(ratios):.1f}",
            f"{min(ratios):.1f}",
        )
    return table


def _decibels(picture: Picture, exact: Picture) -> float:
    apart = np.asarray(picture.image).astype(float) - np.asarray(exact.image)
    error = float((apart**2).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _embedded() -> str:
    from sd_scenes import model_folder

    return str(model_folder())


if __name__ == "__main__":
    main()
