"""The embedded model: what it weighs, what it says of itself, and that it draws what it is told."""

import json
from collections.abc import Sequence
from functools import cache

import diffusers
import numpy as np
import pytest
import torch

from sd_pipeline import Pipeline, Txt2Img, inspect_model, load_pipeline
from sd_scenes import eval_prompts, model_folder

MAX_BYTES = 48_000_000
CARD_HEADINGS = ("Recipe", "Data", "Time and machine", "Curves", "Samples", "Limits")


@cache
def embedded() -> Pipeline:
    return load_pipeline(model_folder(), device="cpu")


def draw(prompt: str, seeds: Sequence[int]) -> np.ndarray:
    """Return the pictures (N, H, W, 3) in [0, 255] of a prompt at the model's own settings."""
    requests = [Txt2Img(prompt=prompt, seed=seed) for seed in seeds]
    pictures = [picture for request in requests for picture in embedded().txt2img(request)]
    return np.stack([np.asarray(picture.image) for picture in pictures]).astype(float)


def test_all_parts_together_are_small_and_no_pickle_is_among_them() -> None:
    files = [path for path in model_folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    weights = [path for path in files if path.stat().st_size > 1_000_000]
    assert {path.suffix for path in weights} == {".safetensors"}


def test_it_is_whole_in_half_precision_and_small_enough_to_learn_on_two_cores() -> None:
    info = inspect_model(model_folder())
    assert info.missing == ()
    parts = {part.name: part for part in info.parts}
    assert parts["unet"].num_parameters == 15_085_448
    assert parts["vae"].num_parameters == 3_898_379
    assert {dtype for part in info.parts for dtype in part.dtypes} == {"float16"}


def test_its_card_says_how_it_was_made_and_shows_what_it_draws() -> None:
    card = (model_folder() / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    for heading in CARD_HEADINGS:
        assert f"\n## {heading}\n" in card
    pictures = [part.split(")")[0] for part in card.split("](")[1:]]
    pictures = [name for name in pictures if name.endswith(".png")]
    assert len(pictures) >= 2
    assert all((model_folder() / name).is_file() for name in pictures)


def test_it_knows_every_word_of_the_prompts_it_is_judged_by() -> None:
    unknown = {
        word
        for prompt in eval_prompts(seed=1, num_prompts=500)
        for word in embedded().check_prompt(prompt.text).unknown
    }
    assert unknown == set()


@pytest.mark.parametrize("prompt", ["a cat on a mat", "two black cats on a red mat"])
def test_diffusers_draws_the_same_picture_from_its_folder(prompt: str) -> None:
    folder = model_folder()
    settings = json.loads((folder / "sampling.json").read_text())
    peer = diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    peer.set_progress_bar_config(disable=True)
    theirs = peer(
        prompt,
        num_inference_steps=settings["num_steps"],
        guidance_scale=settings["guidance_scale"],
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="np",
    ).images[0]
    difference = np.abs(draw(prompt, [7])[0] - (theirs * 255).round())
    assert difference.max() <= 1  # one grey level: rounding
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize(
    ("colour", "strong", "weak"),
    [("red", 0, 2), ("blue", 2, 0), ("green", 1, 0), ("yellow", 0, 2)],
)
def test_a_ball_has_the_colour_it_is_told(colour: str, strong: int, weak: int) -> None:
    # In snow nothing but the ball has these colours; a mat might be of any.
    pictures = draw(f"a {colour} ball in the snow", range(3))
    lead = (pictures[..., strong] - pictures[..., weak]).reshape(3, -1)
    plain = draw("a black ball in the snow", range(3))
    base = (plain[..., strong] - plain[..., weak]).reshape(3, -1)
    more = (lead > 80).mean(axis=1) - (base > 80).mean(axis=1)
    assert (more > 0.03).sum() >= 2


def test_night_is_darker_than_day() -> None:
    night = draw("a house on the grass, night sky", range(3))
    day = draw("a house on the grass", range(3))
    top = slice(0, 40)
    assert (night[:, top].mean(axis=(1, 2, 3)) + 40 < day[:, top].mean(axis=(1, 2, 3))).all()
