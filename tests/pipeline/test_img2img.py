"""Pictures that begin with a picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sd_pipeline import Img2Img, Inpaint, Pipeline, PipelineError, load_pipeline, read_image
from sd_pipeline.images import blurred, bring_to, filled_up, mask_of

PROMPT = "two black dogs"


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


def noise_image(width: int, height: int, channels: int = 3, seed: int = 0) -> Image.Image:
    shape = (height, width, channels)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def box_mask(width: int, height: int, box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", (width, height))
    mask.paste(255, box)
    return mask


def only(pictures) -> np.ndarray:
    (picture,) = pictures
    return np.asarray(picture.image).astype(int)


@pytest.mark.parametrize("size", [(64, 64), (61, 75)])
@pytest.mark.parametrize("blur", [0.0, 4.0])
def test_what_is_outside_the_mask_is_the_originals_to_the_bit(
    pipeline: Pipeline, size: tuple[int, int], blur: float
) -> None:
    image, mask = noise_image(*size), box_mask(*size, (16, 8, 40, 32))
    request = Inpaint(prompt=PROMPT, image=image, mask=mask, mask_blur=blur, num_steps=2)
    drawn, original = only(pipeline.inpaint(request)), np.asarray(image).astype(int)
    assert drawn.shape == original.shape
    outside = np.ones(drawn.shape[:2], dtype=bool)
    reach = round(3 * blur)
    outside[max(0, 8 - reach) : 32 + reach, max(0, 16 - reach) : 40 + reach] = False
    assert np.array_equal(drawn[outside], original[outside])
    assert not np.array_equal(drawn[8:32, 16:40], original[8:32, 16:40])


def test_the_transparent_part_of_a_picture_is_its_mask(pipeline: Pipeline) -> None:
    image = noise_image(64, 64).convert("RGBA")
    image.putalpha(Image.eval(box_mask(64, 64, (16, 16, 48, 48)), lambda v: 255 - v))
    drawn = only(pipeline.inpaint(Inpaint(prompt=PROMPT, image=image, num_steps=2, mask_blur=0)))
    kept = np.asarray(image.convert("RGB")).astype(int)
    assert np.array_equal(drawn[:16], kept[:16])
    assert not np.array_equal(drawn[16:48, 16:48], kept[16:48, 16:48])


def test_a_picture_is_drawn_at_its_own_size_or_the_one_asked_for(pipeline: Pipeline) -> None:
    image = noise_image(83, 50)
    own = only(pipeline.img2img(Img2Img(prompt=PROMPT, image=image, num_steps=2)))
    assert own.shape == (48, 80, 3)
    asked = Img2Img(prompt=PROMPT, image=image, num_steps=2, width=64, height=40)
    assert only(pipeline.img2img(asked)).shape == (40, 64, 3)


def test_more_strength_leaves_less_of_the_picture(pipeline: Pipeline) -> None:
    image = noise_image(64, 64)
    pictures = [
        only(pipeline.img2img(Img2Img(prompt=PROMPT, image=image, num_steps=10, strength=s)))
        for s in (0.1, 0.9)
    ]
    through = only(
        pipeline.img2img(Img2Img(prompt="a cat", image=image, num_steps=10, strength=0.1))
    )
    # At a tenth the prompt has one step to say anything; at nine tenths it has nine.
    assert np.abs(pictures[0] - through).mean() < np.abs(pictures[1] - through).mean()


def test_steps_are_counted_from_the_first_that_is_taken(pipeline: Pipeline) -> None:
    told: list[tuple[int, int]] = []
    request = Img2Img(prompt=PROMPT, image=noise_image(64, 64), num_steps=10, strength=0.35)
    list(pipeline.img2img(request, on_step=lambda step: told.append((step.number, step.num_steps))))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_prompt_edited_by_step_counts_the_steps_left_out(pipeline: Pipeline) -> None:
    def drawn(prompt: str) -> np.ndarray:
        image = noise_image(64, 64)
        request = Img2Img(prompt=prompt, image=image, num_steps=10, strength=0.3)
        return only(pipeline.img2img(request))

    assert np.array_equal(drawn("[a cat:two dogs:7]"), drawn("two dogs"))
    assert np.array_equal(drawn("[a cat:two dogs:10]"), drawn("a cat"))


def test_the_record_tells_what_a_picture_was_begun_with(pipeline: Pipeline) -> None:
    image, mask = noise_image(64, 64), box_mask(64, 64, (8, 8, 16, 16))
    (picture,) = pipeline.inpaint(Inpaint(prompt=PROMPT, image=image, mask=mask, num_steps=2))
    (other,) = pipeline.img2img(
        Img2Img(prompt=PROMPT, image=noise_image(64, 64, seed=1), num_steps=2)
    )
    edit = picture.record.edit
    assert len(edit["source"]) == len(edit["mask"]) == 64
    assert other.record.edit["source"] != edit["source"]
    assert "mask" not in other.record.edit
    assert "Denoising strength: 0.75" in other.record.parameters()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"strength": 0.0}, "strength is 0.0; it must be above 0 and at most 1"),
        ({"strength": 1.5}, "strength is 1.5"),
        ({"fit": "squeeze"}, "fit is 'squeeze'; it must be crop, stretch, pad"),
        ({"image": noise_image(7, 64)}, r"\(7, 64\); its sides must be at least 8"),
        ({"mask": Image.new("L", (64, 64))}, "the mask has no white"),
        ({"mask": Image.new("L", (32, 64), 255)}, r"mask is \(32, 64\), the picture \(64, 64\)"),
        ({"mask": None}, "no mask, and nothing in the picture is transparent"),
        ({"mask_blur": 99.0}, "mask blur is 99.0; it must be from 0 to 64"),
    ],
)
def test_bad_requests_are_refused_in_one_line(changes: dict[str, object], says: str) -> None:
    good = {"image": noise_image(64, 64), "mask": Image.new("L", (64, 64), 255)}
    with pytest.raises(PipelineError, match=says):
        Inpaint(prompt=PROMPT, **{**good, **changes})


def test_a_strength_that_leaves_no_step_is_refused(pipeline: Pipeline) -> None:
    request = Img2Img(prompt=PROMPT, image=noise_image(64, 64), num_steps=4, strength=0.2)
    with pytest.raises(PipelineError, match=r"0\.2 of 4 steps is none; give at least 0\.250"):
        list(pipeline.img2img(request))


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    for name, says in (
        ("text.png", "is no picture that can be read"),
        ("none.png", "does not exist"),
    ):
        with pytest.raises(PipelineError, match=says):
            read_image(tmp_path / name)


def test_pictures_are_turned_as_their_exif_data_says(tmp_path: Path) -> None:
    image, exif = noise_image(40, 20), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png").size == (20, 40)


def test_the_transparent_part_of_a_file_is_a_mask_whatever_its_kind(tmp_path: Path) -> None:
    clear = box_mask(16, 16, (4, 4, 8, 8))
    solid = noise_image(16, 16).convert("RGBA")
    solid.putalpha(Image.eval(clear, lambda level: 255 - level))
    for name in ("mask.png", "mask.webp", "mask.gif", "mask.tiff"):
        solid.save(tmp_path / name, lossless=True)
        mask = mask_of(read_image(tmp_path / name))
        assert np.array_equal(np.asarray(mask), np.asarray(clear)), name


def test_a_mask_of_sixteen_bits_is_white_from_its_middle_on(tmp_path: Path) -> None:
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "mask.png")
    mask = np.asarray(mask_of(read_image(tmp_path / "mask.png")))
    assert mask.tolist() == np.arange(256).reshape(16, 16).tolist()


def test_a_blurred_mask_covers_what_it_covered_and_fades_to_nothing() -> None:
    mask = box_mask(64, 64, (24, 24, 40, 40))
    soft = np.asarray(blurred(mask, 4))
    assert (soft[24:40, 24:40] == 255).all()
    edge = soft[8:25, 32].astype(int)
    assert (np.diff(edge) >= 0).all()
    assert ((edge > 0) & (edge < 255)).sum() >= 4
    assert (soft[:8] == 0).all()
    assert blurred(mask, 0) is mask


def test_a_picture_of_the_right_size_is_left_as_it_is() -> None:
    image = noise_image(64, 40)
    assert bring_to(image, 64, 40) is image
    assert filled_up(image, 8) is image
    wide = filled_up(noise_image(61, 33), 8)
    assert wide.size == (64, 40)
    assert np.array_equal(np.asarray(wide)[:33, :61], np.asarray(noise_image(61, 33)))
    assert mask_of(image).mode == "L"
