"""Let a model paint drawn scenes anew, for `scene_reader.py` to learn how painted things look.

    python benchmarks/repaint.py --data data/scenes-cloths --model runs/scenes-mixed-2 \\
        --count 6000 --out data/scenes-repainted

Noise is put over the latents of a scene, as much as there is after the first 5 to 7 of 10 steps,
and the model takes the rest of the steps with the scene's own caption. What is there, and where,
stays the scene's; how it looks is the model's. The folder is one of scenes: the same list and
recipe, other pictures. What is there already is not painted again.
"""

import argparse
import json
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from sd_checkpoint import atomic_path
from sd_pipeline import Pipeline, load_pipeline, to_images, to_pixels
from sd_sampler import NoiseSource
from sd_train import SampleSettings
from sd_train.config import WeightingSettings
from sd_train.tasks.denoising import Denoising

_STEPS, _FIRST = 10, (5, 6, 7)
_SEED = 4_000_037


class Painter:
    """A model that paints pictures over, many at a time."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._parts = pipeline.parts
        self._drawing = Denoising(pipeline.parts, WeightingSettings())
        self._guidance = pipeline.defaults.guidance_scale
        self._plan = self._drawing.planned(SampleSettings(steps=_STEPS))

    @torch.inference_mode()
    def __call__(
        self, pictures: Sequence[Image.Image], captions: Sequence[str], first_step: int, seed: int
    ) -> list[Image.Image]:
        """Paint pictures from step `first_step` on, the first with the noise of the seed."""
        vae, drawing = self._parts.vae, self._drawing
        pixels = torch.cat([to_pixels(picture) for picture in pictures])
        latents = vae.scale(vae.encode(pixels.to(drawing.dtype)).mode()).float()
        noise = NoiseSource(
            range(seed, seed + len(pictures)), tuple(latents.shape[1:]), device=drawing.device
        )
        rest = self._plan.tail(first_step)
        guided = drawing.guided(rest, captions, self._guidance)
        painted = rest.run(guided, noise, x=rest.noised(latents, noise()))
        return to_images(vae.decode(vae.unscale(painted.to(drawing.dtype))).float())


def main(arguments: Sequence[str] | None = None) -> None:
    """Paint the first pictures of a folder into another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder of scenes")
    parser.add_argument("--model", type=Path, required=True, help="the folder of who paints")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--count", type=int, default=6000, help="pictures")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures at a time")
    parser.add_argument("--dtype", default="bf16", help="of the networks: fp32, bf16 or fp16")
    options = parser.parse_args(arguments)
    lines = (options.data / "metadata.jsonl").read_text("utf-8").splitlines()[: options.count]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "metadata.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    shutil.copy(options.data / "scenes.json", options.out)
    told = [json.loads(line) for line in lines]
    painter = Painter(load_pipeline(options.model, device="cpu", dtype=options.dtype))
    begun = time.perf_counter()
    for first in range(0, len(told), options.batch_size):
        some = told[first : first + options.batch_size]
        paths = [options.out / one["file_name"] for one in some]
        if all(path.is_file() for path in paths):
            continue
        pictures = [Image.open(options.data / one["file_name"]).convert("RGB") for one in some]
        start = random.Random(first).choice(_FIRST)
        painted = painter(pictures, [one["text"] for one in some], start, _SEED + first)
        for picture, path in zip(painted, paths, strict=True):
            with atomic_path(path) as temporary:
                picture.save(temporary, "PNG")
        if first // options.batch_size % 20 == 0:
            print(
                f"painted {first} of {len(told)}, {time.perf_counter() - begun:.0f} s", flush=True
            )


if __name__ == "__main__":
    main()
