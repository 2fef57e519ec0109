"""Pictures as PNG, JPEG and WebP files: what they carry, and what they cannot."""

import struct
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from sd_pipeline import (
    Picture,
    PipelineError,
    Record,
    Txt2Img,
    check_out,
    load_pipeline,
    parse_parameters,
    read_metadata,
    save_picture,
)
from sd_pipeline.images import pixel_hash
from sd_pipeline.picture_file import check_fits
from sd_pipeline.picture_format import PictureFormat

PNG, JPEG, WEBP = (PictureFormat(name=name) for name in ("png", "jpeg", "webp"))
LOSSY_WEBP = PictureFormat(name="webp", quality=80)
PROMPT = 'a cat, on: a "mat"\nдва 🐈 </sd:record> & <!-- -->\ufffe'


@pytest.fixture(scope="module")
def record(tiny_model: Path) -> Record:
    pipeline = load_pipeline(tiny_model, name="a, b: c", device="cpu")
    return pipeline.resolve(Txt2Img(prompt=PROMPT, negative_prompt="dogs", seed=2**62, num_steps=3))


@pytest.fixture
def picture(record: Record) -> Picture:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    return Picture(image=Image.fromarray(pixels), record=record, seconds=0.0)


@pytest.mark.parametrize("file_format", [PNG, JPEG, WEBP, LOSSY_WEBP])
def test_every_format_tells_the_whole_record(
    picture: Picture, tmp_path: Path, file_format: PictureFormat
) -> None:
    path = save_picture(picture, tmp_path, file_format)
    assert path.suffix == file_format.suffix
    read = read_metadata(path)
    assert (read.program, read.record) == ("sdcli", picture.record)
    assert (read.pixels, read.encoding) == (pixel_hash(picture.image), file_format)


@pytest.mark.parametrize(
    ("file_format", "same"), [(PNG, True), (WEBP, True), (JPEG, False), (LOSSY_WEBP, False)]
)
def test_only_formats_without_loss_keep_the_pixels_that_the_record_names(
    picture: Picture, tmp_path: Path, file_format: PictureFormat, same: bool
) -> None:
    with Image.open(save_picture(picture, tmp_path, file_format)) as image:
        kept = pixel_hash(image.convert("RGB")) == read_metadata(Path(image.filename)).pixels
    assert kept is same is file_format.lossless


@pytest.mark.parametrize("file_format", [PNG, JPEG, WEBP])
def test_every_format_says_that_a_machine_drew_it(
    picture: Picture, tmp_path: Path, file_format: PictureFormat
) -> None:
    with Image.open(save_picture(picture, tmp_path, file_format)) as image:
        xmp = image.info["xmp"]
    description = ElementTree.fromstring(xmp).find(".//{*}Description")
    assert description is not None
    assert description.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType") == (
        "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    )


@pytest.mark.parametrize("file_format", [JPEG, WEBP])
def test_the_web_ui_finds_its_text_where_it_writes_it_itself(
    picture: Picture, tmp_path: Path, file_format: PictureFormat
) -> None:
    with Image.open(save_picture(picture, tmp_path, file_format)) as image:
        exif = image.info["exif"].removeprefix(b"Exif\0\0")
    # As piexif writes and reads: big-endian, an UNDEFINED UserComment, UTF-16 in the same order.
    assert exif[:8] == b"MM\0*\0\0\0\x08"
    assert struct.unpack(">HHHII", exif[8:22]) == (1, 0x8769, 4, 1, 26)
    _, tag, kind, length, offset = struct.unpack(">HHHII", exif[26:40])
    assert (tag, kind) == (0x9286, 7)
    comment = exif[offset : offset + length]
    assert comment[:8] == b"UNICODE\0"
    text = comment[8:].decode("utf-16-be")
    assert text == picture.record.parameters()
    assert parse_parameters(text)["Seed"] == str(2**62)


def test_jpeg_keeps_all_the_colours_pixels_and_takes_a_quality(
    picture: Picture, tmp_path: Path
) -> None:
    fine = save_picture(picture, tmp_path / "fine.jpg")
    coarse = save_picture(picture, tmp_path / "c.JPEG", PictureFormat(name="jpeg", quality=10))
    with Image.open(fine) as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3
    assert coarse.stat().st_size < fine.stat().st_size
    assert read_metadata(coarse).encoding == PictureFormat(name="jpeg", quality=10)


def test_a_prompt_too_long_for_jpeg_is_refused_whole_and_the_old_file_stays(
    picture: Picture, tmp_path: Path
) -> None:
    long = replace(picture, record=replace(picture.record, prompt="a cat " * 12_000))
    out = save_picture(picture, tmp_path / "a.jpg")
    before = out.read_bytes()
    for attempt in (lambda: check_fits(long.record, JPEG), lambda: save_picture(long, out)):
        with pytest.raises(PipelineError, match=r"a JPEG file holds 65,5\d\d; shorten"):
            attempt()
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]
    for file_format in (PNG, WEBP):
        check_fits(long.record, file_format)
        path = save_picture(long, tmp_path, file_format)
        assert read_metadata(path).record == long.record


def test_the_longest_prompt_that_is_promised_to_fit_fits(picture: Picture, tmp_path: Path) -> None:
    prompt = "猫" * 30_000
    while True:
        record = replace(picture.record, prompt=prompt, negative_prompt="")
        try:
            check_fits(record, JPEG)
            break
        except PipelineError:
            prompt = prompt[: len(prompt) * 99 // 100]
    assert len(prompt) > 19_000
    largest = replace(record, seed=2**63 - 1, batch_seed=2**63 - 1, batch_size=10**6)
    path = save_picture(replace(picture, record=largest), tmp_path / "a.jpg")
    assert read_metadata(path).record == largest


def test_half_a_character_is_refused_in_prompts_and_kept_elsewhere(
    picture: Picture, tmp_path: Path
) -> None:
    for name in ("prompt", "negative_prompt"):
        with pytest.raises(PipelineError, match=r"U\+DCE9, half a character, at 2"):
            replace(picture.record, **{name: "a \udce9"})
    named = replace(picture, record=replace(picture.record, model="/models/\udce9"))
    for file_format in (PNG, JPEG, WEBP):
        path = save_picture(named, tmp_path, file_format)
        assert read_metadata(path).record == named.record


def test_names_in_a_folder_never_collide_whatever_their_format(
    picture: Picture, tmp_path: Path
) -> None:
    formats = (PNG, JPEG, WEBP, JPEG, None)
    paths = [save_picture(picture, tmp_path, file_format) for file_format in formats]
    assert [path.name[:5] for path in paths] == [f"0000{i}" for i in range(1, 6)]
    assert [path.suffix for path in paths] == [".png", ".jpg", ".webp", ".jpg", ".png"]
    assert sorted(tmp_path.iterdir()) == paths


def test_a_files_suffix_says_its_format_and_nothing_else_may() -> None:
    assert PictureFormat.of(Path("a.JPG")) == JPEG
    assert PictureFormat.of(Path("a.webp"), "webp", 80) == LOSSY_WEBP
    assert PictureFormat.of(Path("folder")) == PNG
    assert PictureFormat.of(Path("folder"), "jpeg") == JPEG
    for arguments, words in (
        ((Path("a.png"), "jpeg"), "a.png is png, and jpeg was asked for"),
        ((Path("a.png"), None, 80), "PNG keeps every pixel and takes no quality"),
        ((Path("a.jpg"), None, 0), "the quality is 0; it must be from 1 to 100"),
        ((Path("a"), "bmp"), "the format is 'bmp'; it must be png, jpeg, webp"),
    ):
        with pytest.raises(PipelineError, match=words):
            PictureFormat.of(*arguments)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.jpeg", "a.webp", "A.PNG", "new/a.JPEG"])
def test_places_for_pictures_are_found_good_beforehand(tmp_path: Path, name: str) -> None:
    check_out(tmp_path / name, 1)
    with pytest.raises(PipelineError, match="one file for 2 pictures"):
        check_out(tmp_path / name, 2)


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.txt", "v1.5"])
def test_other_suffixes_are_refused_beforehand_with_those_that_are_allowed(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(PipelineError, match=r"ends in \.\w+; .* \.png, \.jpg, \.jpeg, \.webp"):
        check_out(tmp_path / "new" / name, 1)
    assert not (tmp_path / "new").exists()
    (tmp_path / name).mkdir()
    check_out(tmp_path / name, 2)  # a folder may be called what it likes


def test_what_a_format_cannot_hold_is_refused_in_one_line(picture: Picture, tmp_path: Path) -> None:
    wide = replace(picture, image=Image.new("RGB", (16_384, 1)))
    with pytest.raises(PipelineError, match=r"16384 x 1 pixels .* cannot be written as WebP"):
        save_picture(wide, tmp_path, WEBP)
    with pytest.raises(PipelineError, match=r"cannot write to .*; choose another --out"):
        save_picture(picture, Path(__file__) / "folder")
    assert not list(tmp_path.iterdir())
