"""Models that edit by instructions or draw by depth draw diffusers' picture, to 1/255 a channel."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sd_pipeline import Img2Img, load_pipeline, open_model, write_single_file
from sd_sampler import GuidanceOptions
from tests.parity import peers

# Each (size, seeds, guidance, negative prompt, image guidance, strength of depth models).
CASES = (
    ((64, 64), [11, 12, 13], 5.0, peers.NEGATIVE, 1.5, 0.8),
    ((40, 56), [7], 5.0, None, 1.0, 1.0),
    ((64, 64), [3], 1.0, None, 1.5, 0.5),
)
STEPS = 4


def picture(size: tuple[int, int]) -> Image.Image:
    colours = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def depth() -> np.ndarray:
    """Return a map of 16 bits, of other proportions than any picture."""
    return np.random.default_rng(1).integers(9000, 9900, (21, 30), dtype=np.uint16)


def theirs(pipeline: Any, case: tuple[Any, ...]) -> np.ndarray:
    size, seeds, guidance, negative, image_guidance, strength = case
    pipeline.set_progress_bar_config(disable=True)
    number = len(seeds)
    settings: dict[str, Any] = {
        "prompt": [peers.PROMPT] * number,
        "negative_prompt": None if negative is None else [negative] * number,
        "image": [picture(size)] * number,
        "num_inference_steps": STEPS,
        "guidance_scale": guidance,
        "generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        "output_type": "np",
    }
    if "Depth" in type(pipeline).__name__:
        values = torch.from_numpy(depth().astype(np.float32))
        settings |= {"depth_map": values[None], "strength": strength}
    else:
        settings["image_guidance_scale"] = image_guidance
    if "XL" in type(pipeline).__name__:
        settings |= {"width": size[0], "height": size[1]}
    return (np.asarray(pipeline(**settings).images) * 255).round().astype(int)


def ours(path: Path, name: str, case: tuple[Any, ...]) -> np.ndarray:
    size, seeds, guidance, negative, image_guidance, strength = case
    own: dict[str, Any] = {"guidance": GuidanceOptions(image_scale=image_guidance)}
    if "depth" in name:
        own = {"depth": Image.fromarray(depth()), "strength": strength}
    request = Img2Img(
        prompt=peers.PROMPT,
        negative_prompt=negative or "",
        image=picture(size),
        num_steps=STEPS,
        sampler="euler",
        guidance_scale=guidance,
        seed=seeds[0],
        count=len(seeds),
        batch_size=len(seeds),
        **own,
    )
    drawn = load_pipeline(path, device="cpu").img2img(request)
    return np.stack([np.asarray(one.image) for one in drawn]).astype(int)


@pytest.mark.parametrize("name", list(peers.EDITORS))
def test_it_draws_the_picture_that_diffusers_draws(name: str, tmp_path: Path) -> None:
    pipeline = peers.EDITORS[name](tmp_path)
    peers.randomize(pipeline)
    folder, file = tmp_path / "diffusers", tmp_path / "model.safetensors"
    pipeline.save_pretrained(folder)
    write_single_file(file, open_model(folder))
    for case in CASES:
        wanted = theirs(pipeline, case)
        assert wanted.std() > 5  # a picture, not a flat colour that anything would equal
        for path in (folder, file):
            mine = ours(path, name, case)
            assert mine.shape == wanted.shape
            assert np.abs(mine - wanted).max() <= 1
