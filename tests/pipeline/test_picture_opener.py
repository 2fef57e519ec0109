"""The worst picture files imaginable come out right or are named."""

import os
import random
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from sd_pipeline.picture_opener import PictureError, decode_picture, open_picture
from tests.pipeline.worst_pictures import (
    GREY,
    GREY_ALPHA,
    PALETTE,
    RGB,
    RGBA,
    bombs,
    linear_grey_profile,
    png,
    swapped_profile,
    tiff,
    white_is_zero,
)

# Pillow grumbles about what it then refuses.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SIZE = (40, 24)


def _noise(size: tuple[int, int] = SIZE) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _open(folder: Path, content: bytes, name: str = "picture.png", **options: object) -> np.ndarray:
    (folder / name).write_bytes(content)
    image = open_picture(folder / name, **options)
    assert image.mode == "RGB"
    assert image.info == {}
    return np.asarray(image)


def _refusal(path: Path, **options: object) -> PictureError:
    with pytest.raises(PictureError) as caught:
        open_picture(path, **options)
    message = str(caught.value)
    assert path.name.encode("unicode_escape").decode() in message
    assert "\n" not in message
    assert ";" in caught.value.reason  # the mend comes last
    return caught.value


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_plain_pictures_come_back_bit_for_bit(tmp_path: Path, kind: str) -> None:
    image = _noise()
    assert np.array_equal(_open(tmp_path, _encoded(image, kind, lossless=True)), np.asarray(image))


def test_the_content_says_the_format_and_not_the_name(tmp_path: Path) -> None:
    assert np.array_equal(_open(tmp_path, _encoded(_noise(), "PNG"), "photo.JPG"), _noise())


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    upright = np.asarray(_noise())
    # What is stored, so that a reader that follows the tag sees the picture upright.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = _encoded(Image.fromarray(stored.copy()), kind, exif=exif, lossless=True)
    assert np.array_equal(_open(tmp_path, content), upright)


def test_broken_exif_changes_nothing(tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\xff\xff\xff\xff nonsense"
    assert _open(tmp_path, _encoded(_noise(), "PNG", exif=exif)).shape == (24, 40, 3)
    assert _open(tmp_path, _encoded(_noise(), "JPEG", exif=exif)).shape == (24, 40, 3)


def test_colours_are_brought_from_the_profile_to_srgb(tmp_path: Path) -> None:
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    profile = swapped_profile()
    for mode, kind in (("RGB", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("RGB", "TIFF")):
        pixel = _open(tmp_path, _encoded(red.convert(mode), kind, icc_profile=profile))[0, 0]
        assert np.abs(pixel.astype(int) - (0, 255, 0)).max() <= 2, (mode, kind, pixel)
    jpeg = _open(tmp_path, _encoded(red, "JPEG", icc_profile=profile, quality=100))[0, 0]
    assert np.abs(jpeg.astype(int) - (0, 255, 0)).max() <= 4
    grey = Image.new("L", (4, 4), 55)
    for mode in ("L", "LA"):
        content = _encoded(grey.convert(mode), "PNG", icc_profile=linear_grey_profile())
        assert np.abs(_open(tmp_path, content)[0, 0].astype(int) - 128).max() <= 2


def test_a_profile_that_is_broken_or_of_other_colours_says_nothing(tmp_path: Path) -> None:
    for profile in (b"no profile at all", linear_grey_profile(), swapped_profile()[:200]):
        content = _encoded(_noise(), "PNG", icc_profile=profile)
        assert np.array_equal(_open(tmp_path, content), _noise())
    cmyk = _encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", icc_profile=b"none")
    assert np.abs(_open(tmp_path, cmyk)[4, 4].astype(int) - (255, 0, 0)).max() <= 4


def test_lab_and_a_profile_of_srgb_itself_keep_the_colours(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    tagged = _open(tmp_path, _encoded(_noise(), "PNG", icc_profile=srgb.tobytes()))
    assert np.abs(tagged.astype(int) - _noise()).max() <= 1
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (4, 4), (200, 60, 90)),
        srgb,
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    lab.info = {}
    assert (
        np.abs(_open(tmp_path, _encoded(lab, "TIFF"))[0, 0].astype(int) - (200, 60, 90)).max() < 6
    )


def test_cmyk_is_not_taken_for_its_negative(tmp_path: Path) -> None:
    for kind in ("JPEG", "TIFF"):
        content = _encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), kind)
        assert np.abs(_open(tmp_path, content)[4, 4].astype(int) - (0, 255, 255)).max() <= 4


def test_sixteen_bits_become_eight_and_not_white(tmp_path: Path) -> None:
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    expected = np.arange(256).reshape(16, 16, 1).repeat(3, 2)
    rows = [row.astype(">u2") for row in ramp]
    files = {
        "grey": png((16, 16), 16, GREY, [row.tobytes() for row in rows]),
        "colour": png((16, 16), 16, RGB, [row.repeat(3).tobytes() for row in rows]),
        "tiff": _encoded(Image.fromarray(ramp), "TIFF"),
    }
    opaque = [np.stack([row, np.full_like(row, 65535)], 1) for row in rows]
    files["alpha"] = png((16, 16), 16, GREY_ALPHA, [row.tobytes() for row in opaque])
    for name, content in files.items():
        assert np.array_equal(_open(tmp_path, content), expected), name
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 277: 1, 278: 1}
    twelve = tiff(tags, bytes.fromhex("000fff800010"))
    assert _open(tmp_path, twelve)[0, :, 0].tolist() == [0, 255, 128, 1]
    inverted = white_is_zero(files["tiff"])
    assert np.array_equal(_open(tmp_path, inverted), 255 - expected)


def test_what_is_transparent_shows_the_background(tmp_path: Path) -> None:
    blue = (0, 0, 255)
    half = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    half.putpixel((0, 0), (9, 9, 9, 0))
    palette = png((2, 1), 8, PALETTE, [b"\0\1"], PLTE=b"\7\7\7\xff\0\0", tRNS=b"\0")
    files = {
        "rgba": _encoded(half, "PNG"),
        "webp": _encoded(half, "WEBP", lossless=True),
        "tiff": _encoded(half, "TIFF"),
        "palette": palette,
        "palette of one bit": png(
            (2, 1), 1, PALETTE, [b"\x40"], PLTE=b"\7\7\7\xff\0\0", tRNS=b"\0"
        ),
        "one colour": png((2, 1), 8, RGB, [b"\7\7\7\xff\0\0"], tRNS=b"\0\7\0\7\0\7"),
        "one colour of 16 bits": png(
            (2, 1), 16, RGB, [b"\7\7\7\7\7\7\xff\xff\0\0\0\0"], tRNS=b"\7\7" * 3
        ),
        "16 bits": png((2, 1), 16, RGBA, [b"\7" * 6 + b"\0\0\xff\xff\0\0\0\0\xff\xff"]),
        "gif": _encoded(half, "GIF"),
    }
    for name, content in files.items():
        assert _open(tmp_path, content, background=blue).tolist() == [[[0, 0, 255], [255, 0, 0]]], (
            name
        )


@pytest.mark.parametrize(
    ("depth", "row"), [(1, b"\x40"), (2, b"\x30"), (4, b"\x0f"), (8, b"\0\xff")]
)
def test_the_grey_that_means_transparent_is_found_at_every_depth(
    tmp_path: Path, depth: int, row: bytes
) -> None:
    for transparent in (0, 2**depth - 1):
        content = png((2, 1), depth, GREY, [row], tRNS=struct.pack(">H", transparent))
        pixels = _open(tmp_path, content, background=(0, 0, 255)).tolist()[0]
        expected = [[0, 0, 0], [255, 255, 255]]
        expected[transparent > 0] = [0, 0, 255]
        assert pixels == expected
    wide = png((2, 1), 16, GREY, [b"\1\0\xff\xff"], tRNS=b"\1\0")
    assert _open(tmp_path, wide).tolist() == [[[255] * 3, [255] * 3]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_without_a_background_alpha_is_kept_upright_beside_colours_in_srgb(
    tmp_path: Path, mode: str
) -> None:
    image = Image.new("RGBA", (3, 2), (255, 0, 0, 255)).convert(mode)
    image.putpixel((0, 0), (9, 9, 9, 0) if mode == "RGBA" else (9, 0))
    exif = Image.Exif()
    exif[0x0112] = 3
    profile = swapped_profile() if mode == "RGBA" else linear_grey_profile()
    path = tmp_path / "picture.png"
    path.write_bytes(_encoded(image, "PNG", exif=exif, icc_profile=profile))
    opened = open_picture(path, background=None)
    assert (opened.mode, opened.info) == ("RGBA", {})
    assert np.asarray(opened)[..., 3].tolist() == [[255, 255, 255], [255, 255, 0]]
    if mode == "RGBA":
        assert np.abs(np.asarray(opened)[0, 0, :3].astype(int) - (0, 255, 0)).max() <= 2
    path.write_bytes(_encoded(_noise(), "PNG"))
    assert open_picture(path, background=None).mode == "RGB"


def test_what_a_palette_leaves_out_is_kept_as_alpha(tmp_path: Path) -> None:
    path = tmp_path / "palette.png"
    path.write_bytes(png((2, 1), 8, PALETTE, [b"\0\1"], PLTE=b"\7\7\7\xff\0\0", tRNS=b"\0"))
    kept = np.asarray(open_picture(path, background=None))
    assert kept.tolist() == [[[7, 7, 7, 0], [255, 0, 0, 255]]]


def test_a_file_in_memory_is_opened_as_one_on_the_disk(tmp_path: Path) -> None:
    for kind in FORMATS:
        content = _encoded(_noise(), kind)
        assert np.array_equal(decode_picture(content, "a picture"), _open(tmp_path, content)), kind
    photo = _encoded(_noise((64, 64)), "JPEG")
    contents = {
        "empty": b"",
        "not a picture": b"text",
        "truncated": photo[: len(photo) // 2].ljust(len(photo), b"\0"),
        "too many pixels": bombs()["bomb.png"],
    }
    for kind, content in contents.items():
        with pytest.raises(PictureError, match=r"^shard\.tar:1 ") as caught:
            decode_picture(content, "shard.tar:1")
        assert caught.value.kind == kind


def test_half_transparent_is_half_way_to_the_background(tmp_path: Path) -> None:
    content = _encoded(Image.new("LA", (1, 1), (0, 128)), "PNG")
    assert _open(tmp_path, content, background=(200, 100, 0)).tolist() == [[[100, 50, 0]]]
    assert _open(tmp_path, content).tolist() == [[[127, 127, 127]]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_a_film_the_first_frame_is_taken(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"save_all": True, "append_images": frames[1:], "lossless": True}
    assert (_open(tmp_path, _encoded(frames[0], kind, **options)) == (255, 0, 0)).all()


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    image = _noise().convert("1")
    expected = np.asarray(image.convert("RGB"))
    for kind in ("PNG", "TIFF", "BMP"):
        assert np.array_equal(_open(tmp_path, _encoded(image, kind)), expected)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_files_that_were_cut_off_are_refused(tmp_path: Path, kind: str, share: float) -> None:
    content = _encoded(_noise((64, 64)), kind)
    path = tmp_path / "cut.png"
    path.write_bytes(content[: int(len(content) * share)])
    assert _refusal(path).kind in ("truncated", "damaged", "not a picture")


def test_a_photo_filled_up_with_zeros_is_refused_and_not_grey(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "\xff\xd9"
    content = _encoded(_noise((64, 64)), "JPEG", exif=exif.tobytes() + b"\xff\xd9")
    path = tmp_path / "half.jpg"
    path.write_bytes(content + b"trailing bytes are no harm")
    open_picture(path)
    path.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))
    assert _refusal(path).kind == "truncated"


def test_a_flipped_bit_in_a_png_is_found(tmp_path: Path) -> None:
    content = bytearray(_encoded(_noise(), "PNG"))
    content[len(content) // 2] ^= 1
    path = tmp_path / "flipped.png"
    path.write_bytes(content)
    assert _refusal(path).kind == "damaged"


@pytest.mark.parametrize("name", sorted(bombs()))
def test_bombs_are_refused_by_their_heads(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    path = tmp_path / name
    path.write_bytes(bombs()[name])
    assert _refusal(path).kind == "too many pixels"


def test_the_pixel_limit_is_the_callers(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(_encoded(_noise((10, 10)), "PNG"))
    open_picture(path, max_pixels=100)
    refusal = _refusal(path, max_pixels=99)
    assert "10 x 10 pixels, more than 99; make it smaller" in str(refusal)


def test_text_and_profiles_that_swell_up_are_refused(tmp_path: Path) -> None:
    swelling = zlib.compress(bytes(2**22))
    for chunk in ({"zTXt": b"a\0\0" + swelling}, {"iCCP": b"a\0\0" + swelling}):
        path = tmp_path / "swelling.png"
        path.write_bytes(png((1, 1), 8, GREY, [b"\0"], **chunk))
        assert _refusal(path).kind == "damaged"


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    contents = {
        "empty.png": b"",
        "page.jpg": b"<!doctype html><title>404</title>",
        "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "head.png": b"\x89PNG\r\n\x1a\n",
        "zeros.jpg": bytes(1000),
        "line\nbreak.png": b"x",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        kind = "empty" if not content else "not a picture"
        assert _refusal(tmp_path / name).kind == kind, name


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    kinds = {
        "folder.png": "not a file",
        "pipe.png": "not a file",
        "dangling.png": "missing",
        "loop.png": "missing",
        "x" * 300: "missing",
    }
    for name, kind in kinds.items():
        assert _refusal(tmp_path / name).kind == kind, name


def test_a_file_of_absurd_length_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.webp"
    with path.open("wb") as file:
        file.write(_encoded(_noise(), "WEBP"))
        file.truncate(2**40)
    assert _refusal(path).kind == "too many bytes"


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_unknown_range_are_named(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "depth.tiff"
    Image.new(mode, (4, 4), 3).save(path)
    assert _refusal(path).kind == "pixel format"


@pytest.mark.parametrize("kind", FORMATS)
def test_whatever_the_bytes_the_answer_is_a_picture_or_a_refusal(tmp_path: Path, kind: str) -> None:
    chance = random.Random(kind)
    whole = _encoded(_noise((12, 9)), kind)
    path = tmp_path / "mutant"
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            content[chance.randrange(min(len(content), 400))] = chance.randrange(256)
        path.write_bytes(content)
        try:
            image = open_picture(path, max_pixels=10**6)
        except PictureError:
            continue
        assert image.mode == "RGB"
