import json
import re
from pathlib import Path

import pytest
from PIL import Image

from sdcli.main import run


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_prompt_becomes_a_file_whose_path_seed_and_time_are_printed(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pictures"
    code, printed, _ = outcome(
        capsys, "txt2img", "a cat on a mat", "--model", tiny_model, "--out", out,
        "--steps", "2", "--seed", "7", "--count", "3", "--batch", "2",
    )  # fmt: skip
    assert code == 0
    lines = printed.splitlines()
    files = sorted(out.iterdir())
    assert [line.split()[0] for line in lines] == [str(path) for path in files]
    assert [re.search(r"seed (\d+)  [\d.]+ s$", line)[1] for line in lines] == ["7", "8", "9"]


def test_without_a_seed_every_run_takes_another_and_says_which(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = set()
    for _ in range(2):
        _, printed, _ = outcome(
            capsys, "txt2img", "a cat", "--model", tiny_model, "--out", tmp_path, "--steps", "1"
        )
        seeds.add(re.search(r"seed (\d+)", printed)[1])
    assert len(seeds) == 2


def test_words_that_the_model_does_not_know_are_named(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = outcome(
        capsys, "txt2img", "a zebra on a mat", "--model", tiny_model, "--out", tmp_path,
        "--steps", "1",
    )  # fmt: skip
    assert code == 0
    assert "does not know 'zebra'" in told


def test_a_prompt_longer_than_the_context_is_told_to_be(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = "a cat on a mat, a cat on a mat, two black dogs"
    _, _, told = outcome(
        capsys, "txt2img", prompt, "--model", tiny_model, "--out", tmp_path, "--steps", "1"
    )
    assert "more than the model's context: it is read in pieces of 10" in told


def test_a_bracket_that_is_never_closed_is_named(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, told = outcome(
        capsys, "txt2img", "a (cat", "--model", tiny_model, "--out", tmp_path, "--steps", "1"
    )
    assert "'a (cat', a '(' is never closed" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "--width", "100"], "width is 100; it must be a multiple of 8"),
        (["a", "--height", "-8"], "height is -8"),
        (["a", "--sampler", "eulr"], "unknown sampler 'eulr'"),
        (["a", "--schedule", "karas"], "unknown schedule 'karas'"),
        (["a", "--steps", "0"], "steps is 0; it must be at least 1"),
        (["a", "--steps", "many"], "--steps"),
        (["a", "--count", "0"], "count is 0"),
        (["a", "--batch", "0"], "batch is 0"),
        (["a", "--guidance", "0"], "guidance is 0.0; it must be from 1"),
        (["a", "--seed", "-1"], "seed is -1"),
        (["a", "--dtype", "int3"], "dtype is 'int3'"),
        (["a", "--device", "abacus"], "device 'abacus' cannot be used"),
        (["a", "--attention", "magic"], "magic"),
        (["a", "--attention", "xformers", "--device", "cpu"], "xformers"),
        (["a", "--model", "no-such-model"], "there is no model 'no-such-model'"),
        (["a", "--out", "/dev/null/pictures"], "cannot write to /dev/null"),
        (["a", "--out", "one.png", "--count", "2"], "one file for 2 pictures"),
        ([""], "the prompt is empty"),
        ([], "give either a prompt"),
        (["a", "--bogus"], "No such option: --bogus"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    words: str,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(tiny_model)]
    code, printed, told = outcome(capsys, "txt2img", *arguments)
    assert code == 2
    assert printed == ""
    assert words in told
    assert len(told.splitlines()) == 1
    assert not list(tmp_path.rglob("*.png"))


def test_the_help_names_every_sampler_and_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    from sd_sampler import SAMPLERS, SIGMA_SCHEDULES

    _, printed, _ = outcome(capsys, "txt2img", "--help")
    words = set(re.findall(r"\w+", printed))
    assert words >= {*SAMPLERS, *SIGMA_SCHEDULES}


def test_a_sampler_may_be_spelled_as_the_web_ui_does(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "one.png"
    code, _, _ = outcome(
        capsys, "txt2img", "a cat", "--model", tiny_model, "--out", out,
        "--steps", "2", "--sampler", "DPM++ 2M SDE", "--schedule", "SGM Uniform",
    )  # fmt: skip
    assert code == 0
    parameters = Image.open(out).text["parameters"]
    assert "Sampler: DPM++ 2M SDE, Schedule type: SGM Uniform" in parameters


def test_each_picture_has_its_own_choice_of_words(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pet.txt").write_text("cat\ndogs\n")
    code, _, _ = outcome(
        capsys, "txt2img", "{a|two black} __pet__", "--model", tiny_model, "--out",
        tmp_path / "out", "--wildcards", tmp_path, "--steps", "1", "--seed", "1", "--count", "12",
        "--batch", "4",
    )  # fmt: skip
    assert code == 0
    records = [json.loads(Image.open(p).text["sd-record"]) for p in (tmp_path / "out").iterdir()]
    assert {record["prompt"] for record in records} == {
        f"{beginning} {pet}" for beginning in ("a", "two black") for pet in ("cat", "dogs")
    }
    assert sorted(record["seed"] for record in records) == list(range(1, 13))


def test_a_wildcard_that_is_not_there_is_refused_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = outcome(capsys, "txt2img", "a __pet__", "--out", tmp_path)
    assert code == 2
    assert "no wildcard __pet__" in told


def test_guidance_options_reach_the_record(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "one.png"
    code, _, _ = outcome(
        capsys, "txt2img", "a cat", "--model", tiny_model, "--out", out, "--steps", "2",
        "--guidance", "5", "--guidance-rescale", "0.5", "--guidance-interval", "0:0.5", "--apg",
        "--threshold", "99",
    )  # fmt: skip
    assert code == 0
    record = json.loads(Image.open(out).text["sd-record"])["guidance"]
    assert (record["scale"], record["rescale"], record["interval"]) == (5.0, 0.5, [0.0, 0.5])
    assert (record["projected"], record["threshold"]) == (True, 99.0)


@pytest.mark.parametrize("interval", ["half", "0.5", "0:0.2:1"])
def test_an_interval_of_the_wrong_form_is_refused(
    capsys: pytest.CaptureFixture[str], interval: str
) -> None:
    code, _, told = outcome(capsys, "txt2img", "a cat", "--guidance-interval", interval)
    assert code == 2
    assert f"--guidance-interval is {interval!r}; it must be FIRST:LAST" in told


def test_the_dtype_that_was_chosen_and_what_an_option_trades_are_told(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = "txt2img", "a cat", "--model", tiny_model, "--out", tmp_path, "--steps", "2"
    _, _, told = outcome(capsys, *given)
    assert "dtype fp32 (auto)" in told
    assert "--reuse-features" not in told
    _, _, told = outcome(
        capsys, *given, "--dtype", "bf16", "--reuse-features", "2", "--merge-tokens", "0.5"
    )
    assert "dtype bf16" in told
    assert "(auto)" not in told
    assert "--reuse-features 2: the UNet's depth is computed at one step of 2" in told
    assert "--merge-tokens 0.5: so many of the finest level's tokens" in told
