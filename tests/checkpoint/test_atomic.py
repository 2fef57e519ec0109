import os
from pathlib import Path

import pytest

from sd_checkpoint import CheckpointError, atomic_path


class Stop(Exception):  # noqa: N818
    pass


def write_half(path: Path, error: BaseException) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error


def fill_half(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.mkdir()
        (temporary / "half").write_text("")
        raise Stop


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def test_a_file_appears_when_the_block_succeeds(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
        assert temporary.parent == target.parent
        assert temporary.suffix == target.suffix
    assert target.read_text() == "whole"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(Stop):
        write_half(target, Stop())
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path / "a.txt", KeyboardInterrupt())
    assert os.listdir(tmp_path) == []


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    (target / "stale").mkdir(parents=True)
    with atomic_path(target) as temporary:
        (temporary / "unet").mkdir(parents=True)
        (temporary / "unet" / "config.json").write_text("{}")
    assert sorted(p.name for p in target.rglob("*")) == ["config.json", "unet"]
    assert os.listdir(tmp_path) == ["model"]


def test_an_error_while_a_folder_is_filled_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "model"
    (target / "old").mkdir(parents=True)
    with pytest.raises(Stop):
        fill_half(target)
    assert os.listdir(target) == ["old"]
    assert os.listdir(tmp_path) == ["model"]


def test_missing_parents_are_made(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "runs" / "1" / "a.txt") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "runs" / "1" / "a.txt").read_text() == "whole"


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    with atomic_path(tmp_path / "link.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_a_place_beneath_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write .*; choose another place") as caught:
        write_text(tmp_path / "file" / "a.txt", "")
    assert "\n" not in str(caught.value)


def test_a_file_over_a_folder_is_refused_and_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "model" / "part").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="cannot write"):
        write_text(tmp_path / "model", "")
    assert os.listdir(tmp_path) == ["model"]
    assert os.listdir(tmp_path / "model") == ["part"]
