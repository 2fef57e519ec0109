"""`inspect` and `replay`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdcli.main import run


def draw(tiny_model: Path, out: Path, *arguments: str) -> Path:
    code = run(
        ["txt2img", "a [cat|dog] on a (mat:1.3)", "--model", str(tiny_model), "--out", str(out),
         "--steps", "3", "--seed", "5", *arguments]
    )  # fmt: skip
    assert code == 0
    return out


def test_inspect_prints_what_a_picture_says(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = draw(tiny_model, tmp_path / "one.png")
    capsys.readouterr()
    assert run(["inspect", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "made by sdcli" in printed
    assert "prompt: a [cat|dog] on a (mat:1.3)" in printed
    assert run(["inspect", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["seed"], told["encoding"]["name"], len(told["pixels"])) == (5, "png", 64)


def test_inspect_says_where_a_format_has_changed_the_pixels(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, words in (
        ("a.jpg", ", as drawn; JPEG of quality 95 has changed them\n"),
        ("a.webp", "\n"),
    ):
        path = draw(tiny_model, tmp_path / name)
        capsys.readouterr()
        assert run(["inspect", str(path)]) == 0
        last = capsys.readouterr().out.splitlines(keepends=True)[-1]
        assert last[:8] == "pixels: "
        assert last[8 + 64 :] == words


def test_what_a_file_says_does_not_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = PngInfo()
    info.add_itxt("invokeai_metadata", '{"a\x9b": "\\u001b[2J\\ud800\\nb"}')
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    assert run(["inspect", str(tmp_path / "a.png")]) == 0
    assert capsys.readouterr().out.endswith("a\\x9b: \\x1b[2J\\ud800\nb\n")
    assert run(["inspect", str(tmp_path / "a.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["a\x9b"] == "\x1b[2J\ud800\nb"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--sampler", "DPM++ 2M SDE", "--schedule", "exponential"],
        ["--guidance", "6", "--apg", "--guidance-interval", "0:0.7"],
        ["--prediction", "eps", "--width", "48", "--negative", "a dog"],
    ],
)
def test_a_picture_is_made_again_identically(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    path = draw(tiny_model, tmp_path / "one.png", *arguments)
    capsys.readouterr()
    assert run(["replay", str(path), "--out", str(tmp_path / "again.png")]) == 0
    assert capsys.readouterr().out == f"{path}: identical\n"
    assert np.array_equal(Image.open(path), Image.open(tmp_path / "again.png"))


@pytest.mark.parametrize(
    ("name", "words"),
    [("one.webp", ""), ("one.jpg", " as drawn, before JPEG of quality 95")],
)
def test_a_picture_in_any_format_is_made_again_identically(
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    words: str,
) -> None:
    path = draw(tiny_model, tmp_path / name)
    capsys.readouterr()
    assert run(["replay", str(path), "--out", str(tmp_path / f"again-{name}")]) == 0
    assert capsys.readouterr().out == f"{path}: identical{words}\n"
    assert path.read_bytes() == (tmp_path / f"again-{name}").read_bytes()


def test_replay_prints_one_json_document(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = draw(tiny_model, tmp_path / "one.png")
    capsys.readouterr()
    assert run(["replay", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": str(path),
        "identical": True,
        "different_pixels": 0,
        "num_pixels": 4096,
        "changed": False,
        "differences": {},
    }


@pytest.mark.parametrize(("name", "least"), [("one.png", 4000), ("one.jpg", 4000)])
def test_another_picture_is_told_with_what_differs(
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    least: int,
) -> None:
    from dataclasses import replace

    from sd_pipeline import Picture, read_image, read_metadata, save_picture

    path = draw(tiny_model, tmp_path / name)
    record = read_metadata(path).record
    assert record is not None
    other = replace(record, seed=6, batch_seed=6, versions={**record.versions, "torch": "0.1"})
    save_picture(Picture(image=read_image(path), record=other, seconds=0), path)
    capsys.readouterr()
    assert run(["replay", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["identical"], told["num_pixels"]) == (False, 4096)
    assert least < told["different_pixels"] <= 4096
    assert told["differences"]["torch"]["then"] == "0.1"
    assert list(told["differences"]) == ["torch"]
    assert run(["replay", str(path)]) == 0
    printed = capsys.readouterr().out
    assert f"{told['different_pixels']} of 4096 pixels differ" in printed
    assert "torch: 0.1 then" in printed


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"dtype": "float99"}, "dtype is 'float99'; it must be float32"),
        ({"batch_seed": 6}, "a seed that is not of its batch"),
        ({"batch_seed": 2}, "a seed that is not of its batch"),
        ({"sampler": "eulr"}, "did you mean 'euler'"),
        ({"edit": {"source": "0", "unheard_of": 1}}, "give it as --image"),
        ({"edit": {"strength": 1}}, "does not know"),
        ({"width": 7}, "width is 7"),
        ({"model": "/no/model"}, "no model '/no/model'"),
    ],
)
def test_a_record_that_cannot_be_drawn_is_refused_in_one_line(
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    values: dict[str, object],
    words: str,
) -> None:
    path = draw(tiny_model, tmp_path / "one.png")
    with Image.open(path) as image:
        record = json.loads(image.text["sd-record"])
        info = PngInfo()
        info.add_itxt("sd-record", json.dumps({**record, **values}))
        image.save(path, pnginfo=info)
    capsys.readouterr()
    assert run(["replay", str(path)]) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert told.out == ""
    assert len(told.err.splitlines()) == 1


def test_each_of_a_batch_is_made_again_identically(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tiny_model, tmp_path / "many", "--count", "3", "--batch", "2")
    capsys.readouterr()
    for path in sorted((tmp_path / "many").iterdir()):
        assert run(["replay", str(path)]) == 0
        assert "identical" in capsys.readouterr().out


def test_a_picture_from_a_picture_is_made_again_with_it(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    mask.save(tmp_path / "mask.png")
    out = tmp_path / "out.png"
    given = ["--model", str(tiny_model), "--out", str(out), "--steps", "4", "--strength", "0.5"]
    image, hole = str(tmp_path / "in.png"), ["--mask", str(tmp_path / "mask.png")]
    assert run(["inpaint", image, "a cat", *hole, *given]) == 0
    capsys.readouterr()
    assert run(["replay", str(out)]) == 2
    assert "give it as --image" in capsys.readouterr().err
    assert run(["replay", str(out), "--image", image]) == 2
    assert "give it as --mask" in capsys.readouterr().err
    assert run(["replay", str(out), "--image", image, *hole]) == 0
    assert "identical" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["pix2pix", "depth"])
def test_an_edited_picture_is_made_again_with_what_the_model_was_shown(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    levels = np.tile(np.arange(64, dtype=np.uint16), (64, 1))
    Image.fromarray(levels).save(tmp_path / "depth.png")
    image, out = str(tmp_path / "in.png"), tmp_path / "out.png"
    model = str(request.getfixturevalue(f"tiny_{kind}"))
    shown = ["--depth", str(tmp_path / "depth.png")] if kind == "depth" else []
    own = shown or ["--image-guidance", "2.5"]
    given = ["--model", model, "--out", str(out), "--steps", "2", "--seed", "5"]
    assert run(["img2img", image, "a cat", *own, *given]) == 0
    capsys.readouterr()
    if shown:
        assert run(["replay", str(out), "--image", image]) == 2
        assert (
            "names the depth map by its hash alone; give it as --depth" in capsys.readouterr().err
        )
    assert run(["replay", str(out), "--image", image, *shown]) == 0
    told = capsys.readouterr()
    assert told.out == f"{out}: identical\n"
    assert "other pixels" not in told.err


def test_a_changed_file_is_told_with_the_number_of_its_pixels(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = draw(tiny_model, tmp_path / "one.png")
    image, info = Image.open(path), PngInfo()
    record = json.loads(image.text["sd-record"])
    record["versions"]["torch"] = "0.1"
    info.add_itxt("sd-record", json.dumps(record))
    image.load()
    r, g, b = image.getpixel((3, 3))
    image.putpixel((3, 3), (255 - r, g, b))
    image.save(path, pnginfo=info)
    capsys.readouterr()
    assert run(["replay", str(path)]) == 0
    printed = capsys.readouterr().out
    # The pixels that were written are the ones that are drawn again: the record says so.
    assert "identical" in printed
    assert "it has been changed" in printed
    record["pixels"] = "0" * 64
    info = PngInfo()
    info.add_itxt("sd-record", json.dumps(record))
    image.save(path, pnginfo=info)
    assert run(["replay", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "1 of 4096 pixels differ" in printed
    assert "it has been changed" in printed
    assert "torch: 0.1 then" in printed


def test_only_our_own_pictures_are_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = PngInfo()
    info.add_itxt("parameters", "a cat\nSteps: 2, Sampler: Euler, Seed: 1")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    assert run(["replay", str(tmp_path / "a.png")]) == 2
    assert "made by the web UI; only our own" in capsys.readouterr().err


def test_a_folder_is_not_said_to_be_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(tmp_path)]) == 2
    assert "is a folder, pipe or device; name a file" in capsys.readouterr().err
