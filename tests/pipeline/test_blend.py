"""Pictures on the way to other pictures, tiles, previews, and batches that change nothing."""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sd_pipeline import (
    Blend,
    Img2Img,
    Inpaint,
    Outpaint,
    Pipeline,
    PipelineError,
    Txt2Img,
    autoencoding,
    fit_preview,
    load_pipeline,
    to_images,
)
from sd_pipeline.edits import box_around
from sd_pipeline.seamless import seamless
from sd_sampler import SAMPLERS
from sd_vae import DiagonalGaussian, MemoryBudget, VAEConfig

PROMPT, OTHER = "a cat on a mat", "two black dogs"


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu", batch_invariant=True)


def drawn(pipeline: Pipeline, **settings: object) -> np.ndarray:
    (picture,) = pipeline.txt2img(Txt2Img(**{"prompt": PROMPT, "num_steps": 3, **settings}))
    return np.asarray(picture.image).astype(int)


def test_a_blend_begins_with_the_picture_and_ends_with_the_other(pipeline: Pipeline) -> None:
    def blended(share: float) -> np.ndarray:
        return drawn(pipeline, seed=1, blend=Blend(share=share, prompt=OTHER, seed=9))

    first, last = drawn(pipeline, seed=1), drawn(pipeline, prompt=OTHER, seed=9)
    assert np.abs(blended(0.0) - first).max() <= 1
    assert np.abs(blended(1.0) - last).max() <= 1
    middle = blended(0.5)
    assert np.abs(middle - first).mean() < np.abs(last - first).mean()
    assert np.abs(middle - last).mean() < np.abs(last - first).mean()


def test_prompt_and_seed_blend_each_by_itself(pipeline: Pipeline) -> None:
    seeds = drawn(pipeline, blend=Blend(share=0.5, seed=9))
    prompts = drawn(pipeline, blend=Blend(share=0.5, prompt=OTHER))
    assert not np.array_equal(seeds, prompts)
    assert not np.array_equal(seeds, drawn(pipeline))
    assert not np.array_equal(prompts, drawn(pipeline))


def test_a_long_prompt_blends_with_a_short_one(pipeline: Pipeline) -> None:
    assert drawn(pipeline, blend=Blend(share=0.5, prompt="a cat on a mat, " * 4)).any()


def test_prompts_that_join_different_numbers_do_not_blend(pipeline: Pipeline) -> None:
    with pytest.raises(PipelineError, match="give both as many"):
        drawn(pipeline, blend=Blend(share=0.5, prompt="a cat AND a dog"))


def test_each_picture_of_a_batch_goes_towards_a_seed_of_its_own(pipeline: Pipeline) -> None:
    request = Txt2Img(
        prompt=PROMPT, num_steps=2, seed=3, count=2, batch_size=2, blend=Blend(share=0.3, seed=20)
    )
    second = list(pipeline.txt2img(request))[1]
    assert second.record.blend == Blend(share=0.3, seed=21)
    alone = drawn(pipeline, num_steps=2, seed=4, blend=Blend(share=0.3, seed=21))
    assert np.array_equal(np.asarray(second.image), alone)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_the_batch_changes_no_bit_of_a_picture(pipeline: Pipeline, sampler: str) -> None:
    settings = {"prompt": PROMPT, "num_steps": 4, "sampler": sampler, "guidance_scale": 3.0}
    together = pipeline.txt2img(Txt2Img(**settings, seed=5, count=3, batch_size=3))
    alone = [next(pipeline.txt2img(Txt2Img(**settings, seed=seed))) for seed in (5, 6, 7)]
    for one, other in zip(together, alone, strict=True):
        assert one.image.tobytes() == other.image.tobytes()


@pytest.mark.parametrize(("axes", "joined"), [("x", [True, False]), ("both", [True, True])])
def test_a_seamless_network_knows_no_edge(
    pipeline: Pipeline, axes: str, joined: list[bool]
) -> None:
    """What is rolled before is rolled after, along the axes that are joined and no other."""
    x, t = torch.randn(1, 4, 8, 8, generator=torch.manual_seed(0)).double(), torch.tensor([500.0])
    text = torch.randn(1, 5, 32).double()
    # In float32 Winograd's tiles round otherwise where a picture is shifted.
    unet = copy.deepcopy(pipeline.parts.unet).double()
    with torch.inference_mode():
        plain = unet(x, t, text)
        with seamless(axes, unet):  # type: ignore[arg-type]
            for dim, same in zip((3, 2), joined, strict=True):
                # By the factor of the deepest level, where a shift is one of its positions.
                rolled = unet(x.roll(2, dim), t, text).roll(-2, dim)
                assert torch.allclose(rolled, unet(x, t, text), rtol=0, atol=1e-9) == same
        assert torch.equal(unet(x, t, text), plain)


def test_seamless_ends_with_the_run_even_if_it_fails(pipeline: Pipeline) -> None:
    unet = pipeline.parts.unet
    with pytest.raises(ZeroDivisionError), seamless("both", unet):
        raise ZeroDivisionError
    assert unet.conv_in.padding == (1, 1)
    assert not unet.conv_in._forward_pre_hooks


def test_seamless_is_in_the_record_and_in_the_picture(pipeline: Pipeline) -> None:
    (picture,) = pipeline.txt2img(Txt2Img(prompt=PROMPT, num_steps=2, seamless="both"))
    assert picture.record.seamless == "both"
    assert not np.array_equal(np.asarray(picture.image), drawn(pipeline, num_steps=2))
    with pytest.raises(PipelineError, match="seamless is 'round'; it must be none, x, y, both"):
        Txt2Img(prompt=PROMPT, seamless="round")  # type: ignore[arg-type]


class MixingVAE:
    """Encode by averaging patches and mixing their colours: a preview can take it apart again."""

    config = VAEConfig(block_out_channels=(32, 32, 32, 32), sample_size=64)
    post_quant_conv = torch.nn.Conv2d(1, 1, 1)
    mixing = torch.tensor([[1.0, 2.0, 0.5], [-1.0, 0.3, 0.0], [0.2, -0.4, 3.0], [0.0, 0.7, -1.0]])

    def encode(self, pixels: torch.Tensor) -> DiagonalGaussian:
        small = torch.nn.functional.avg_pool2d(pixels, 8)
        mean = torch.einsum("kc,bchw->bkhw", self.mixing, small) + 0.25
        return DiagonalGaussian(mean, torch.zeros_like(mean))

    def scale(self, z: torch.Tensor) -> torch.Tensor:
        return z * 0.18215


def test_a_preview_finds_the_colours_that_latents_stand_for() -> None:
    vae = MixingVAE()
    pixels = torch.rand((2, 3, 64, 48), generator=torch.manual_seed(1)) * 2 - 1
    images = fit_preview(vae)(vae.scale(vae.encode(pixels).mode()))  # type: ignore[arg-type]
    wanted = to_images(torch.nn.functional.avg_pool2d(pixels, 8))
    for image, other in zip(images, wanted, strict=True):
        assert image.size == (6, 8)
        assert np.abs(np.asarray(image).astype(int) - np.asarray(other)).max() <= 1


def test_a_latent_resize_draws_the_larger_size_and_another_picture(pipeline: Pipeline) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))

    def larger(resize: str) -> np.ndarray:
        request = Img2Img(
            prompt=PROMPT, image=image, width=128, height=96, num_steps=4, strength=0.5,
            resize=resize, fit="stretch",
        )  # fmt: skip
        (picture,) = pipeline.img2img(request)
        return np.asarray(picture.image)

    pixels, latents = larger("pixel"), larger("latent")
    assert pixels.shape == latents.shape == (96, 128, 3)
    assert not np.array_equal(pixels, latents)


def test_a_margin_draws_the_masks_surroundings_alone(pipeline: Pipeline) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (100, 200, 3), np.uint8))
    mask = Image.new("L", image.size)
    mask.paste(255, (150, 60, 170, 80))
    request = Inpaint(prompt=PROMPT, image=image, mask=mask, margin=6, mask_blur=0, num_steps=2)
    (picture,) = pipeline.inpaint(request)
    before, after = np.asarray(image), np.asarray(picture.image)
    assert (picture.record.width, picture.record.height) == (64, 64)
    assert after.shape == before.shape
    changed = (before != after).any(axis=-1)
    assert changed[60:80, 150:170].mean() > 0.9
    changed[60:80, 150:170] = False
    assert not changed.any()


@pytest.mark.parametrize(
    ("box", "margin", "size", "wanted"),
    [
        ((150, 60, 170, 80), 6, (64, 64), (144, 54, 176, 86)),
        ((0, 0, 10, 10), 5, (64, 64), (0, 0, 20, 20)),  # moved inwards
        ((90, 10, 100, 90), 0, (64, 32), (15, 10, 175, 90)),  # grown to the proportions
        ((0, 0, 200, 100), 50, (64, 64), (0, 0, 200, 100)),  # no more than there is
    ],
)
def test_the_box_around_a_mask(
    box: tuple[int, ...], margin: int, size: tuple[int, int], wanted: tuple[int, ...]
) -> None:
    mask = Image.new("L", (200, 100))
    mask.paste(255, box)
    assert box_around(mask, margin, size) == wanted


@pytest.mark.parametrize("seamless", ["none", "x"])
def test_bands_make_the_same_picture(
    pipeline: Pipeline, seamless: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = MemoryBudget(memory=300_000)  # bytes: a few rows
    for name in ("decode_in_bands", "encode_in_bands"):
        in_bands = partial(getattr(autoencoding, name), budget=budget)
        monkeypatch.setattr(autoencoding, name, in_bands)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8))
    request = Img2Img(prompt=PROMPT, image=image, num_steps=4, seamless=seamless)
    (whole,) = pipeline.draw(request)
    (banded,) = replace(pipeline, tiling="on").draw(request)
    difference = np.asarray(whole.image).astype(int) - np.asarray(banded.image)
    assert np.abs(difference).max() <= 1
    assert (whole.record.tiling, banded.record.tiling) == ("auto", "on")


def test_outpaint_tells_the_picture_and_the_sides(pipeline: Pipeline) -> None:
    image = Image.new("RGB", (64, 48), (200, 30, 30))
    request = Outpaint(prompt=PROMPT, image=image, left=16, bottom=8, num_steps=2, mask_blur=0)
    (picture,) = pipeline.draw(request)
    assert picture.image.size == (80, 56)
    assert picture.image.crop((16, 0, 80, 48)).tobytes() == image.tobytes()
    assert picture.record.edit["left"] == 16
    assert "mask" not in picture.record.edit


def test_five_lines_of_python_draw(tiny_model: Path) -> None:
    pipe = Pipeline.load(tiny_model)
    for picture in pipe.txt2img(Txt2Img(prompt=PROMPT, num_steps=2, seed=7)):
        assert picture.image.size == (64, 64)
        assert picture.record.seed == 7
