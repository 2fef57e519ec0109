"""A folder of scenes is whole, the same for any number of workers, and resumable."""

import json

import pytest

from sd_scenes import SceneError, draw_scene, write_folder


def rows(folder):
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def test_a_folder_holds_every_picture_with_its_caption(tmp_path):
    counted = []
    folder = write_folder(tmp_path / "set", 5, seed=4, size=32, workers=1, on_item=counted.append)
    assert counted == [1, 2, 3, 4, 5]
    assert [row["text"] for row in rows(folder)] == [draw_scene(4, i, 32)[1] for i in range(5)]
    for row in rows(folder):
        assert (folder / row["file_name"]).is_file()
    assert not list(folder.rglob("*.part"))


def test_workers_draw_the_same_folder(tmp_path):
    alone = write_folder(tmp_path / "alone", 6, size=32, workers=1)
    together = write_folder(tmp_path / "together", 6, size=32, workers=2)
    assert contents(alone) == contents(together)


def test_a_stopped_folder_is_continued(tmp_path):
    class StopError(Exception):
        pass

    def stop(done):
        if done == 3:
            raise StopError

    with pytest.raises(StopError):
        write_folder(tmp_path / "set", 6, size=32, workers=1, on_item=stop)
    assert not (tmp_path / "set" / "metadata.jsonl").exists()
    first = next((tmp_path / "set").glob("*/*.png"))
    written = first.stat().st_mtime_ns
    folder = write_folder(tmp_path / "set", 6, size=32, workers=1)
    assert first.stat().st_mtime_ns == written
    assert contents(folder) == contents(write_folder(tmp_path / "whole", 6, size=32, workers=1))


def test_a_folder_grows(tmp_path):
    write_folder(tmp_path / "set", 2, size=32, workers=1)
    assert len(rows(write_folder(tmp_path / "set", 4, size=32, workers=1))) == 4


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(SceneError, match="not empty"):
        write_folder(tmp_path, 1, workers=1)
    write_folder(tmp_path / "set", 1, size=32, workers=1)
    with pytest.raises(SceneError, match="choose another folder"):
        write_folder(tmp_path / "set", 1, size=64, workers=1)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SceneError, match="cannot write") as refusal:
        write_folder(tmp_path / "file" / "set", 1, workers=1)
    assert "\n" not in str(refusal.value)


def test_a_folder_of_nothing_is_refused(tmp_path):
    with pytest.raises(SceneError, match="1 or more"):
        write_folder(tmp_path / "set", 0)
