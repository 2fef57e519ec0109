"""Measure whether a model of the scenes knows which colour belongs to which thing.

    python benchmarks/colour_binding.py --model runs/scenes-unet-relations/model

Pictures of two things of two colours, which no training set holds, are noised, and the model
denoises them once with their captions and once with the captions' two colours exchanged, at equal
noise. A bag of words gives both the same loss. Printed for some timesteps: by how much the wrong
caption costs more, as 1/2 d mse_eps / d log SNR in nats a picture (its part of the likelihood), and
the share of pictures for which the wrong caption was the better one; a half is chance.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sd_pipeline import Parts, load_pipeline, to_pixels
from sd_scenes import make_scene, model_folder, paint_scene

SEED = 1_000_003  # far from those of training sets
BATCH = 32


def pairs(count: int) -> Iterator[tuple[Tensor, str, str]]:
    """Yield pictures (1, 3, H, W) with their captions, right and with the colours exchanged."""
    index = found = 0
    while found < count:
        scene, caption = make_scene(SEED, index, two_coloured=1.0)
        index += 1
        first, second = (str(group.colour) for group in scene.groups)
        if any(len(re.findall(rf"\b{colour}\b", caption)) != 1 for colour in (first, second)):
            continue  # a mat of the same colour: exchanged words would say something else
        found += 1
        yield to_pixels(paint_scene(scene, 128)), caption, _exchanged(caption, first, second)


def _exchanged(caption: str, first: str, second: str) -> str:
    """Return a caption with two words exchanged, "an" before vowels alone."""
    pair = rf"\b({first}|{second})\b"
    text = re.sub(pair, lambda m: second if m[0] == first else first, caption)
    return re.sub(r"\ban?(?= ([a-z]))", lambda m: "an" if m[1] in "aeiou" else "a", text)


@torch.inference_mode()
def errors(parts: Parts, x0: Tensor, captions: Sequence[str], timestep: int) -> Tensor:
    """Return the squared errors (B,) of the noise that the model finds, summed over a picture."""
    schedule = parts.scheduler.diffusion.noise_schedule()
    prediction = parts.scheduler.diffusion.prediction_object()
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(timestep))
    timesteps = torch.full((len(x0),), timestep)
    sigma = schedule.sigmas.float()[timesteps]
    noised = schedule.add_noise(x0, noise, timesteps)
    states = parts.text_encoder.encode(list(captions)).hidden_states
    output = parts.unet(noised, timesteps.float(), states)
    error = (output - prediction.target(x0, noise, sigma)).square().flatten(1).sum(1)
    # The error of x0 is c_out times the output's, and that of the noise x0's over sigma.
    return error * (prediction.scalings(sigma).c_out / sigma) ** 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the model that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a model's folder; the embedded one otherwise")
    parser.add_argument("--count", type=int, default=128, help="pictures")
    parser.add_argument("--timesteps", type=int, nargs="*", default=[180, 320, 480, 640])
    options = parser.parse_args(arguments)
    parts = load_pipeline(options.model or model_folder(), device="cpu", dtype="fp32").parts
    every = list(pairs(options.count))
    with torch.inference_mode():
        x0 = torch.cat([parts.vae.scale(parts.vae.encode(one).mode()) for one, _, _ in every])
    print("timestep  nats  wrong caption better")
    for timestep in options.timesteps:
        right, wrong = (
            torch.cat(
                [
                    errors(parts, part, [row[which] for row in rows], timestep)
                    for part, rows in zip(x0.split(BATCH), _chunks(every), strict=True)
                ]
            )
            for which in (1, 2)
        )
        nats, share = float((wrong - right).mean()) / 2, float((wrong < right).float().mean())
        print(f"{timestep:8d}  {nats:4.2f}  {share:.2f}")


def _chunks(rows: Sequence[tuple[Tensor, str, str]]) -> Iterator[Sequence[tuple[Tensor, str, str]]]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]


if __name__ == "__main__":
    main()
