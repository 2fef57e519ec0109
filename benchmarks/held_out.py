"""Compare models by their loss on scenes that none has seen, at the same noise.

    python benchmarks/held_out.py runs/scenes-unet-marks/model runs/scenes-mixed

Each of 96 scenes is looked at with four timesteps, all of them spread evenly. It prints the mean
squared error of v in four bands of timesteps and over all, and how much a model's is below the
first one's, with the standard error of that difference.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sd_pipeline import load_pipeline, to_pixels
from sd_scenes import draw_scene
from sd_train.config import WeightingSettings
from sd_train.tasks.denoising import Denoising

SEED = 2_000_003  # far from those of training sets
SHARES = {"two_coloured": 0.3, "sided": 0.3, "cloths": 0.3}


@torch.no_grad()
def losses(folder: Path, count: int) -> tuple[Tensor, Tensor]:
    """Return timesteps and losses (L,) of a model's looks at the scenes."""
    parts = load_pipeline(folder, device="cpu", dtype="fp32").parts
    scenes = [draw_scene(SEED, index, 128, **SHARES) for index in range(count)]
    pictures = torch.cat([to_pixels(picture) for picture, _ in scenes])
    posteriors = [parts.vae.encode(some) for some in pictures.split(16)]
    batch = {
        "mean": torch.cat([each.mean for each in posteriors]),
        "std": torch.cat([each.std for each in posteriors]),
        "hidden_states": parts.text_encoder.encode([text for _, text in scenes]).hidden_states,
    }
    denoising = Denoising(parts, WeightingSettings())
    return denoising.held_out_losses([batch], chunk=32, repeats=4)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what the models' losses are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+", help="folders")
    parser.add_argument("--count", type=int, default=96, help="scenes")
    options = parser.parse_args(arguments)
    first: Tensor | None = None
    for folder in options.models:
        timesteps, found = losses(folder, options.count)
        bands = [found[timesteps // 250 == band].mean() for band in range(4)]
        line = "  ".join(f"{float(band):.4f}" for band in bands)
        print(f"{folder}: {line}  all {float(found.mean()):.4f}", end="")
        if first is None:
            first = found
            print()
        else:
            below = first - found
            error = float(below.std()) / len(below) ** 0.5
            print(f"  below the first by {float(below.mean()):.4f} +- {error:.4f}", flush=True)


if __name__ == "__main__":
    main()
