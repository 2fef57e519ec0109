import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from sdcli.main import run
from sdcli.progress import note, stderr
from sdcli.training import reporter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in (("red", "red"), ("blue", "blue"), ("again", "red")):
        Image.new("RGB", (64, 48), colour).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(f"a {colour} picture")
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    return tmp_path


def test_check_names_every_file_and_sums_up(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "check", str(folder), "--size", "48"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"used {folder / 'blue.png'}" in lines
    assert f"used {folder / 'red.png'}: the same pixels as {folder / 'again.png'}" in lines
    assert any(line.startswith(f"dropped {folder / 'broken.jpg'}: is no PNG") for line in lines)
    assert "pictures: 3 used, 1 dropped; 3 other files" in lines
    assert "dropped: 1 not a picture" in lines
    assert "used, but: 1 duplicate" in lines


def test_check_says_the_same_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", str(folder), "--size", "64", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [Path(row["file"]).name for row in said["used"]] == ["again.png", "blue.png", "red.png"]
    assert [Path(row["file"]).name for row in said["dropped"]] == ["broken.jpg"]
    assert said["summary"]["remarks"] == {"too small": 3, "duplicate": 1}
    assert said["summary"]["captions"]["num_distinct"] == 2
    assert said["summary"]["captions"]["num_cut"] == 0


def test_check_names_every_member_of_shards(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(folder / "0.tar", "w") as tar:
        for path in sorted(folder.iterdir()):
            if path.suffix != ".tar":
                tar.add(path, path.name)
    pattern = str(folder / "{0..0}.tar")
    assert run(["data", "check", pattern, "--size", "48"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shard = folder / "0.tar"
    assert f"used {shard}:red.png: the same pixels as {shard}:again.png" in lines
    assert any(line.startswith(f"dropped {shard}:broken.jpg: is no PNG") for line in lines)
    assert f"other {shard}:red.txt: a caption file" in lines
    assert "pictures: 3 used, 1 dropped; 3 other files" in lines


def test_check_lists_the_buckets_of_another_step(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "check", str(folder), "--size", "64", "--json", "--bucket-step"]
    for step, bucket in (("0", "72 x 56"), ("32", "64 x 64")):
        assert run([*command, step]) == 0
        assert json.loads(capsys.readouterr().out)["summary"]["buckets"] == {bucket: 3}


def test_check_explains_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(flag in said for flag in ("DIR", "--size", "--max-pixels", "--json"))


def test_what_cannot_be_checked_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.tgz").write_bytes(b"")
    cases = {
        (str(tmp_path / "gone"),): "is not a folder; name one with pictures",
        (str(tmp_path),): "has no picture that can be used",
        (str(tmp_path / "{0..3}.tar"),): "0.tar is not there; correct the name",
        (str(tmp_path / "a.tgz"),): "a.tgz is compressed, so no picture can be sought in it",
        (str(tmp_path), "--max-pixels", "0"): "max_pixels = 0",
    }
    for arguments, message in cases.items():
        assert run(["data", "check", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.rstrip().splitlines()[-1].startswith("sdcli: ")


def test_brackets_in_captions_and_names_are_shown_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stderr.cache_clear()
    try:
        with reporter() as report:
            report.message("longest: a [/b] dog [red]x[/red] :smile: 5")
        note("[/x].png")
    finally:
        stderr.cache_clear()
    told = capsys.readouterr().err
    assert "longest: a [/b] dog [red]x[/red] :smile: 5" in told
    assert "[/x].png" in told
