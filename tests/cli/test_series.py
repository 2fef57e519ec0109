"""Commands that draw many pictures: from files of prompts, on the way, on a sheet."""

import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sd_pipeline import animation_bytes, read_metadata
from sdcli.errors import CommandError
from sdcli.main import run
from sdcli.prompt_lines import PromptLine, read_lines


def drawn(*arguments: object, model: Path, out: Path) -> list[Path]:
    options = ["--model", str(model), "--out", str(out)]
    assert run([*(str(argument) for argument in arguments), *options]) == 0
    return sorted(out.glob("0*.png"))


def test_prompts_come_from_a_file_with_options_of_their_own(
    tiny_model: Path, tmp_path: Path
) -> None:
    lines = [
        "# pets",
        "a cat on a mat",
        "",
        'two black dogs --seed 9 --width 32 --negative "a cat" --count 2',
        "--prompt 'a cat' --steps 1",
    ]
    (tmp_path / "prompts.txt").write_text("\n".join(lines))
    files = drawn(
        "txt2img", "--prompts", tmp_path / "prompts.txt", "--steps", 2, "--seed", 4,
        model=tiny_model, out=tmp_path / "out",
    )  # fmt: skip
    records = [json.loads(Image.open(file).text["sd-record"]) for file in files]
    assert [record["prompt"] for record in records] == [
        "a cat on a mat", "two black dogs", "two black dogs", "a cat",
    ]  # fmt: skip
    assert [record["seed"] for record in records] == [4, 9, 10, 4]
    assert [record["width"] for record in records] == [64, 32, 32, 64]
    assert [record["num_steps"] for record in records] == [2, 2, 2, 1]
    assert records[1]["negative_prompt"] == "a cat"


def test_prompts_come_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("it's a cat -- really\na dog --cfg_scale=3.5\n"))
    assert read_lines(Path("-")) == [
        PromptLine(number=1, settings={"prompt": "it's a cat -- really"}),
        PromptLine(number=2, settings={"prompt": "a dog", "guidance_scale": 3.5}),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no prompt in"),
        ("# nothing\n", "there is no prompt in"),
        ("a cat --colour red", "line 1 of the prompts: '--colour' is none of --prompt"),
        ("a\nb --steps many", "line 2 of the prompts: --steps is 'many'; it must be a whole"),
        ("--steps 3", "line 1 of the prompts has options but no prompt"),
        ('a --negative "b', "line 1 of the prompts: no closing quotation"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text(text)
    with pytest.raises(CommandError, match=says):
        read_lines(tmp_path / "prompts.txt")


def test_a_line_out_of_range_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\na dog --width 100\n")
    assert run(["txt2img", "--prompts", str(tmp_path / "prompts.txt")]) == 2
    assert "line 2 of the prompts: width is 100" in capsys.readouterr().err


def test_styles_are_put_on(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    styles = tmp_path / "styles.csv"
    styles.write_text(
        'name,prompt,negative_prompt\nnight,"{prompt}, night sky",\ntree,under a tree,a mat\n'
    )
    (file,) = drawn(
        "txt2img", "a cat", "--style", "night", "--style", "tree", "--styles", styles,
        "--steps", 1, model=tiny_model, out=tmp_path / "out",
    )  # fmt: skip
    record = json.loads(Image.open(file).text["sd-record"])
    assert record["prompt"] == "a cat, night sky, under a tree"
    assert record["negative_prompt"] == "a mat"
    assert run(["txt2img", "a cat", "--style", "day", "--styles", str(styles)]) == 2
    assert "there is no style 'day'; there are: night, tree" in capsys.readouterr().err


def test_variations_of_a_picture_differ_by_strength(tiny_model: Path, tmp_path: Path) -> None:
    (first,) = drawn(
        "txt2img", "a cat", "--seed", 3, "--steps", 2, model=tiny_model, out=tmp_path / "out"
    )

    def difference(strength: float) -> float:
        out = tmp_path / f"by{strength:.0%}"
        files = drawn(
            "variations", first, "--strength", strength, "--count", 2, "--seed", 50,
            model=tiny_model, out=out,
        )  # fmt: skip
        assert len(files) == 2
        before = np.asarray(Image.open(first)).astype(int)
        return float(np.mean([np.abs(np.asarray(Image.open(f)) - before).mean() for f in files]))

    assert difference(0) == 0
    assert 0 < difference(0.1) < difference(0.9)


def test_a_variation_is_replayed(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (first,) = drawn("txt2img", "a cat", "--steps", 2, model=tiny_model, out=tmp_path / "out")
    varied = drawn("variations", first, "--count", 2, model=tiny_model, out=tmp_path / "varied")
    capsys.readouterr()
    assert run(["replay", str(varied[1])]) == 0
    assert "identical" in capsys.readouterr().out


def test_interpolate_draws_frames_and_puts_them_together(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    animation = tmp_path / "way.gif"
    files = drawn(
        "interpolate", "a cat", "two black dogs", "--frames", 3, "--steps", 2, "--seed", 1,
        "--animation", animation, model=tiny_model, out=tmp_path / "out",
    )  # fmt: skip
    assert len(files) == 4
    with Image.open(animation) as opened:
        assert opened.n_frames == 4
    capsys.readouterr()
    assert run(["replay", str(files[1])]) == 0
    assert "identical" in capsys.readouterr().out


def test_a_grid_is_labelled_and_its_pictures_are_those_of_the_settings(
    tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    files = drawn(
        "grid", "a cat on a mat", "--x", "steps=1-3(+2)", "--y", "prompt=cat,black dog",
        "--z", "sampler=euler,DPM++ 2M Karras", "--seed", 5, model=tiny_model, out=out,
    )  # fmt: skip
    records = [json.loads(Image.open(file).text["sd-record"]) for file in files]
    settings = [(r["sampler"], r["prompt"], r["num_steps"]) for r in records]
    assert settings == [
        (sampler, f"a {thing} on a mat", steps)
        for sampler in ("euler", "dpmpp_2m")
        for thing in ("cat", "black dog")
        for steps in (1, 3)
    ]
    sheet = Image.open(out / "grid-00001.png")
    assert sheet.width > 2 * 64
    assert sheet.height > 4 * 64
    told = read_metadata(out / "grid-00001.png")
    assert (told.program, told.settings["Script"]) == ("sdcli grid", "X/Y/Z plot")
    assert sheet.text["parameters"] == sheet.text["sd-sheet"]  # the web UI reads the former
    assert run(["replay", str(out / "grid-00001.png")]) == 2
    assert (told.settings["X Type"], told.settings["X Values"]) == ("Steps", "1,3")
    assert (told.settings["Y Type"], told.settings["Y Values"]) == ("Prompt S/R", "cat,black dog")
    assert told.settings["Z Values"] == "euler,DPM++ 2M Karras"
    assert told.settings["Seed"] == "5"
    assert "trainedAlgorithmicMedia" in sheet.text["XML:com.adobe.xmp"]
    pixels = np.asarray(sheet)
    third = np.asarray(Image.open(files[2]))
    assert any(
        np.array_equal(pixels[y : y + 64, x : x + 64], third)
        for y in range(sheet.height - 63)
        for x in range(sheet.width - 63)
        if np.array_equal(pixels[y, x : x + 8], third[0, :8])
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["grid", "a cat"], "there is nothing to vary"),
        (["grid", "a cat", "--x", "mood=1,2"], "the axis 'mood=1,2' must be NAME=VALUE"),
        (["grid", "a cat", "--x", "steps=few"], "the axis steps is 'few'; it must be a whole"),
        (["grid", "a cat", "--x", "steps=9-1"], "the range '9-1' must rise"),
        (["grid", "a cat", "--x", "prompt=dog,cat"], "does not hold 'dog'"),
        (["grid", "a cat", "--x", "seed=1-999", "--y", "steps=1,2"], "1998 pictures; 1000 are"),
        (["grid", "a cat", "--x", "steps=1,0"], "steps is 0"),
        (["interpolate", "a cat"], "there is one prompt and one seed"),
        (["interpolate", "a", "b", "--seeds", "1,2,3"], "there are 2 prompts and 3 seeds"),
        (["interpolate", "a", "b", "--seeds", "one"], "--seeds is 'one'"),
        (["interpolate", "a", "b", "--frames", "0"], "--frames is 0"),
        (["interpolate", "a", "b", "--animation", "a.mp4"], "must end in .gif, .webp, .png"),
        (["variations", "PICTURE"], "does not say how it was made"),
        (["variations", "absent.png"], "absent.png does not exist"),
        (["upscale", "PICTURE"], "does not say what it shows; give a prompt"),
        (["upscale", "PICTURE", "a cat", "--scale", "9"], "--scale is 9.0"),
        (["upscale", "PICTURE", "a cat", "--by", "magic"], "--by is 'magic'; it must be pixel or"),
        (["txt2img"], "give either a prompt or a file"),
        (["txt2img", "a cat", "--prompts", "-"], "give either a prompt or a file"),
        (["txt2img", "a cat", "--prompts", "absent"], "give either a prompt or a file"),
        (["txt2img", "--prompts", "absent"], "cannot read the prompts of absent"),
        (["txt2img", "a cat", "--seamless", "z"], "seamless is 'z'"),
        (["txt2img", "a cat", "--pag", "-1"], "-1"),
        (["txt2img", "a cat", "--guidance-interval", "1"], "--guidance-interval is '1'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("plain.png")
    assert run(["plain.png" if a == "PICTURE" else a for a in arguments]) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert sorted(tmp_path.iterdir()) == [tmp_path / "plain.png"]


@pytest.mark.parametrize("by", ["pixel", "latent"])
def test_upscale_takes_the_prompt_from_the_file(by: str, tiny_model: Path, tmp_path: Path) -> None:
    (first,) = drawn("txt2img", "a cat", "--steps", 2, model=tiny_model, out=tmp_path / "out")
    (large,) = drawn(
        "upscale", first, "--scale", 1.5, "--by", by, "--steps", 4, model=tiny_model,
        out=tmp_path / "large",
    )  # fmt: skip
    opened = Image.open(large)
    assert opened.size == (96, 96)
    assert json.loads(opened.text["sd-record"])["prompt"] == "a cat"


def test_json_is_one_document_on_stdout(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn(
        "txt2img", "a cat", "--count", 2, "--steps", 1, "--seed", 8, "--json",
        model=tiny_model, out=tmp_path / "out",
    )  # fmt: skip
    document = json.loads(capsys.readouterr().out)
    assert [picture["seed"] for picture in document["pictures"]] == [8, 9]
    assert all(Path(picture["path"]).is_file() for picture in document["pictures"])
    latents = tmp_path / "latents.safetensors"
    picture = document["pictures"][0]["path"]
    assert (
        run(["encode", picture, "--out", str(latents), "--model", str(tiny_model), "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out) == {"path": str(latents), "shape": [1, 4, 8, 8]}


def test_a_preview_of_the_running_picture_is_written(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    drawn(
        "txt2img", "a cat", "--steps", 4, "--preview", 2, "--count", 2, "--batch", 2,
        model=tiny_model, out=out,
    )  # fmt: skip
    assert Image.open(out / "preview.png").size == (128, 64)


def test_ctrl_c_ends_after_the_step_and_keeps_what_is_finished(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The signal comes in the second picture's first step: that step is its last."""
    from sd_unet import UNet

    calls = 0
    forward = UNet.forward

    def interrupted(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(UNet, "forward", interrupted)
    before = signal.getsignal(signal.SIGINT)
    out = tmp_path / "out"
    code = run(
        ["txt2img", "a cat", "--count", "5", "--steps", "3", "--model", str(tiny_model),
         "--out", str(out), "--json", "--sampler", "euler"]
    )  # fmt: skip
    assert code == 130
    assert calls == 4
    assert signal.getsignal(signal.SIGINT) is before
    told = capsys.readouterr()
    assert "ending after this step" in told.err
    files = sorted(out.iterdir())
    assert [picture["path"] for picture in json.loads(told.out)["pictures"]] == [str(files[0])]
    assert len(files) == 1


def test_the_shell_is_told_samplers_and_schedules_that_there_are() -> None:
    from sd_sampler import SAMPLERS, SIGMA_SCHEDULES
    from sdcli import options

    assert set(options.SAMPLERS) == set(SAMPLERS)
    assert set(options.SCHEDULES) == set(SIGMA_SCHEDULES)


def test_a_grid_varies_guidance_and_clip_skip(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    files = drawn(
        "grid", "a cat", "--x", "guidance-rescale=0,0.7", "--y", "clip-skip=0,1", "--steps", 1,
        "--seed", 2, model=tiny_model, out=out,
    )  # fmt: skip
    records = [json.loads(Image.open(file).text["sd-record"]) for file in files]
    settings = [(record["clip_skip"], record["guidance"]["rescale"]) for record in records]
    assert settings == [(0, 0), (0, 0.7), (1, 0), (1, 0.7)]
    pixels = [Image.open(file).tobytes() for file in files]
    assert len(set(pixels)) == 4
    assert "Clip skip: 2" in Image.open(files[2]).text["parameters"]
    assert "Clip skip" not in Image.open(files[0]).text["parameters"]


@pytest.mark.parametrize("name", ["way.gif", "way.webp", "way.png"])
def test_moving_pictures_bear_the_mark_of_what_a_model_made(tmp_path: Path, name: str) -> None:
    colours = ((200, 0, 0), (0, 200, 0), (0, 0, 200))
    frames = [Image.new("RGB", (16, 8), colour) for colour in colours]
    path = tmp_path / name
    path.write_bytes(animation_bytes(frames, path.suffix, fps=4))
    assert b"trainedAlgorithmicMedia" in path.read_bytes()
    with Image.open(path) as opened:
        assert opened.n_frames == 3
        for number, colour in enumerate(colours):
            opened.seek(number)
            assert opened.convert("RGB").getpixel((3, 3)) == colour
        assert opened.info["duration"] == 250


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["grid", "a cat", "--x", "steps=1", "--sheet", "/proc/none/a.png"],
            "cannot write --sheet",
        ),
        (
            ["interpolate", "a cat", "a dog", "--animation", "/proc/none/a.gif"],
            "cannot write --ani",
        ),
        (["grid", "a cat", "--x", "pag=much"], "the axis pag is 'much'; it must be a number"),
        (["txt2img", "a cat", "--preview", "-1"], "--preview is -1"),
        (["txt2img", "a cat", "--clip-skip", "-1"], "clip-skip is -1; it must be from 0"),
        (["txt2img", "a cat", "--clip-skip", "12"], "clip_skip is 12; it must be from 0 to 1"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_drawn(
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    assert run([*arguments, "--model", str(tiny_model), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_a_negative_prompt_that_is_not_heeded_is_told(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for guidance, told in (("1", True), ("3", False)):
        drawn(
            "txt2img", "a cat", "--negative", "a dog", "--steps", 1, "--guidance", guidance,
            model=tiny_model, out=tmp_path,
        )  # fmt: skip
        assert ("negative prompt is not heeded" in capsys.readouterr().err) == told
