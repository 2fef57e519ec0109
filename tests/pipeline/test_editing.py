"""Models that are shown a picture to edit (pix2pix), or the depth of one, beside the latents."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sd_pipeline import (
    Img2Img,
    Inpaint,
    Outpaint,
    Pipeline,
    PipelineError,
    Record,
    Txt2Img,
    load_pipeline,
    parse_parameters,
)
from sd_pipeline.depth import depth_channel, to_depth
from sd_sampler import GuidanceOptions

PROMPT = "two black dogs"


def picture(seed: int = 0, size: tuple[int, int] = (64, 40)) -> Image.Image:
    colours = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def ramp(width: int = 64, height: int = 40, *, least: int = 0, step: int = 1) -> Image.Image:
    """Return a depth map of 16 bits that rises from left to right."""
    values = least + step * np.arange(width, dtype=np.uint16)
    return Image.fromarray(np.tile(values, (height, 1)).astype(np.uint16))


@pytest.fixture(scope="module")
def pix2pix(tiny_pix2pix: Path) -> Pipeline:
    return load_pipeline(tiny_pix2pix, device="cpu")


@pytest.fixture(scope="module")
def by_depth(tiny_depth: Path) -> Pipeline:
    return load_pipeline(tiny_depth, device="cpu")


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


def asked(**changes: Any) -> Img2Img:
    defaults = {"prompt": PROMPT, "image": picture(), "num_steps": 2, "guidance_scale": 5.0}
    return Img2Img(**{**defaults, **changes})


def edited(pipeline: Pipeline, **changes: Any) -> np.ndarray:
    drawn = pipeline.img2img(asked(**changes))
    return np.stack([np.asarray(one.image) for one in drawn]).astype(int)


def by_picture(scale: float, **options: Any) -> GuidanceOptions:
    return GuidanceOptions(image_scale=scale, **options)


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({}, [3, 3]),
        ({"guidance": by_picture(2.0)}, [3, 3]),
        ({"guidance": by_picture(1.0)}, [2, 2]),
        ({"guidance_scale": 1.0, "guidance": by_picture(2.0)}, [1, 1]),
        ({"guidance": by_picture(2.0, interval=(0.5, 1.0))}, [1, 3]),
        ({"prompt": "a cat AND two dogs :0.5"}, [4, 4]),
        ({"prompt": "a cat AND two dogs", "guidance_scale": 1.0}, [3, 3]),
        ({"count": 2, "batch_size": 2}, [6, 6]),
    ],
)
def test_a_step_asks_once_and_for_no_more_than_has_weight(
    pix2pix: Pipeline, changes: dict[str, Any], rows: list[int]
) -> None:
    told: list[int] = []
    hook = pix2pix.parts.unet.register_forward_pre_hook(lambda _, given: told.append(len(given[2])))
    edited(pix2pix, **changes)
    hook.remove()
    assert told == rows


def test_what_is_not_asked_for_changes_nothing(pix2pix: Pipeline) -> None:
    less = edited(pix2pix, guidance=by_picture(1.0))
    more = edited(pix2pix, guidance=by_picture(1.0 + 1e-9))
    assert np.abs(less - more).max() <= 1


def test_picture_prompts_and_scale_all_have_their_say(pix2pix: Pipeline) -> None:
    usual = edited(pix2pix)
    for changes in (
        {"image": picture(1)},
        {"prompt": "a cat"},
        {"negative_prompt": "a cat"},
        {"prompt": f"{PROMPT} AND a cat"},
        {"guidance": by_picture(4.0)},
        {"seed": 1},
    ):
        assert np.abs(edited(pix2pix, **changes) - usual).max() > 1, changes
    assert np.array_equal(edited(pix2pix, guidance=by_picture(1.5)), usual)


def test_a_picture_does_not_hang_on_its_batch(pix2pix: Pipeline) -> None:
    together = edited(pix2pix, count=3, batch_size=3)
    alone = np.concatenate([edited(pix2pix, seed=seed) for seed in range(3)])
    assert np.abs(together - alone).max() <= 1
    strict = replace(pix2pix, batch_invariant=True)
    assert np.array_equal(
        edited(strict, count=3, batch_size=3), edited(strict, count=3, batch_size=1)
    )


def test_the_record_tells_the_scale_and_no_strength(pix2pix: Pipeline) -> None:
    record = pix2pix.resolve(asked())
    assert record.guidance.image_scale == 1.5
    assert record.edit["strength"] is None
    assert ", CFG scale: 5, Image CFG scale: 1.5, Seed: 0," in record.parameters()
    assert "Denoising strength" not in record.parameters()
    read = parse_parameters(record.parameters())
    assert (read["CFG scale"], read["Image CFG scale"]) == ("5", "1.5")
    assert Record.from_values(json.loads(record.json())) == record


def test_a_plain_model_has_its_usual_strength_and_no_image_guidance(plain: Pipeline) -> None:
    record = plain.resolve(asked())
    assert record.edit["strength"] == 0.75
    assert "depth" not in record.edit
    assert "Image CFG scale" not in record.parameters()
    assert np.array_equal(edited(plain), edited(plain, strength=0.75))


def test_the_record_tells_the_depth_map_by_its_values(by_depth: Pipeline) -> None:
    told = {
        name: by_depth.resolve(asked(depth=depth)).edit["depth"]
        for name, depth in (
            ("16 bits", ramp()),
            ("8 bits", Image.fromarray(np.asarray(ramp()).astype(np.uint8))),
            ("nearer", ramp(least=1)),
        )
    }
    assert told["16 bits"] == told["8 bits"] != told["nearer"]


def test_depth_has_its_say_by_proportion_alone(by_depth: Pipeline) -> None:
    usual = edited(by_depth, depth=ramp())
    turned = ramp().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert np.abs(edited(by_depth, depth=turned) - usual).max() > 1
    assert np.abs(edited(by_depth, depth=ramp(least=500, step=9)) - usual).max() <= 1
    strengths = [edited(by_depth, depth=ramp(), num_steps=5, strength=s) for s in (0.4, 1.0)]
    assert np.abs(strengths[0] - strengths[1]).max() > 1


def test_a_depth_map_serves_every_picture_of_a_batch(by_depth: Pipeline) -> None:
    together = edited(by_depth, depth=ramp(), count=3, batch_size=3)
    alone = np.concatenate([edited(by_depth, depth=ramp(), seed=seed) for seed in range(3)])
    assert np.abs(together - alone).max() <= 1


@pytest.mark.parametrize("level", [0, 3, 40000])
@pytest.mark.parametrize("size", [(40, 64), (5, 8), (7, 7)])
def test_a_flat_map_says_nothing(level: int, size: tuple[int, int]) -> None:
    values = torch.full((1, 1, 40, 64), float(level))
    assert torch.equal(depth_channel(values, size), torch.zeros(1, 1, *size, dtype=torch.float64))
    values[..., 0, 0] += 1  # where no latent looks
    assert depth_channel(values, (5, 8)).isfinite().all()


def test_a_map_is_shown_from_its_least_to_its_most() -> None:
    for least in (0, 30000):  # the last of sixteen bits is heeded
        values = torch.full((1, 1, 16, 16), float(least))
        values[..., 8:] += 1
        shown = depth_channel(values, (4, 4))
        assert (shown.min(), shown.max()) == (-1, 1)
        assert torch.equal(shown, depth_channel(7 * values + 5, (4, 4)))


@pytest.mark.parametrize(
    ("fit", "columns"),
    [
        ("crop", [*range(16, 48)]),
        ("stretch", [*range(64)]),
    ],
)
def test_a_map_is_cut_as_its_picture_is(fit: Any, columns: list[int]) -> None:
    for picture_size in ((64, 32), (640, 320)):
        values = to_depth(ramp(64, 32), picture_size, (96, 96), fit)
        assert values.shape == (1, 1, 32, len(columns))
        assert values[0, 0, 0].tolist() == columns


def test_a_map_repeats_its_edge_where_its_picture_is_padded() -> None:
    wide = to_depth(ramp(32, 32), (320, 320), (64, 32), "pad")
    assert wide[0, 0, 0].tolist() == [0.0] * 16 + [*range(32)] + [31.0] * 16
    tall = to_depth(ramp(32, 32), (320, 320), (32, 64), "pad")
    assert tall.shape == (1, 1, 64, 32)


def test_however_narrow_the_cut_something_of_a_map_is_left() -> None:
    assert to_depth(ramp(2, 2), (8, 8), (8192, 8), "crop").numel() > 0


MASK = Image.new("L", (64, 40), 255)


@pytest.mark.parametrize(
    ("model", "kind", "changes", "says"),
    [
        (
            "pix2pix",
            Txt2Img,
            {},
            r"own channels \(pix2pix\), and txt2img has none.*use img2img, or",
        ),
        ("by_depth", Txt2Img, {}, r"own channels \(depth\).*; use img2img with --depth, or"),
        ("pix2pix", Inpaint, {"mask": MASK}, r"\(pix2pix\) and heeds no mask; use img2img"),
        ("by_depth", Inpaint, {"mask": MASK, "depth": ramp()}, r"\(depth\) and heeds no mask"),
        ("pix2pix", Outpaint, {"left": 8}, "heeds no mask"),
        ("by_depth", Img2Img, {}, "draws by depth.* give img2img a map as --depth"),
        (
            "by_depth",
            Img2Img,
            {"depth": ramp(), "guidance": by_picture(1.5)},
            "one is for depth; l",
        ),
        ("plain", Img2Img, {"depth": ramp()}, "this one is for txt2img; leave out --depth"),
        ("plain", Inpaint, {"mask": MASK, "depth": ramp()}, "leave out --depth"),
        ("plain", Img2Img, {"guidance": by_picture(1.5)}, "leave out --image-guidance"),
        ("plain", Txt2Img, {"guidance": by_picture(1.5)}, "leave out --image-guidance"),
        ("pix2pix", Img2Img, {"depth": ramp()}, "this one is for pix2pix; leave out --depth"),
        ("pix2pix", Img2Img, {"strength": 0.4}, r"strength \(0\.4\) says nothing to it; leave it"),
        ("pix2pix", Img2Img, {"resize": "latent"}, "leave out the latents' resizing"),
        ("pix2pix", Img2Img, {"guidance": GuidanceOptions(projected=True)}, r"out .*\(--apg\)"),
        ("pix2pix", Img2Img, {"guidance": GuidanceOptions(pag_scale=3.0)}, r"out .*\(--pag\)"),
    ],
)
def test_what_a_model_cannot_draw_is_refused_in_one_line(
    request: pytest.FixtureRequest,
    model: str,
    kind: type[Txt2Img],
    changes: dict[str, Any],
    says: str,
) -> None:
    pipeline: Pipeline = request.getfixturevalue(model)
    given = changes if kind is Txt2Img else {"image": picture(), **changes}
    with pytest.raises(PipelineError, match=says) as caught:
        list(pipeline.draw(kind(prompt=PROMPT, num_steps=2, **given)))
    assert "\n" not in str(caught.value)
