from pathlib import Path

import pytest
from PIL import Image

from sd_train import TrainError
from sd_train.caption_tags import TagOrder
from sd_train.data_check import find_pictures


def _pictures(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8), "red").save(folder / name)


def _write(folder: Path, text: str) -> str:
    path = folder / "dataset.toml"
    path.write_text(text)
    return str(path)


def test_the_lower_level_wins(tmp_path: Path) -> None:
    _pictures(tmp_path / "hoge", "1.png")
    _pictures(tmp_path / "fuga", "2.png", "3.png")
    _pictures(tmp_path / "piyo", "4.png")
    (tmp_path / "fuga/3.cap").write_text("its own caption")
    text = f"""
        [general]
        shuffle_caption = true
        caption_extension = ".cap"
        keep_tokens = 1
        num_repeats = 2

        [[datasets]]
        resolution = 512
        batch_size = 4
        keep_tokens = 2
          [[datasets.subsets]]
          image_dir = "hoge"
          class_tokens = "hoge girl"
          [[datasets.subsets]]
          image_dir = "{tmp_path / "fuga"}"
          class_tokens = "fuga boy"
          keep_tokens = 3
          num_repeats = 5
          caption_prefix = "best quality,"
          [[datasets.subsets]]
          image_dir = "hoge"

        [[datasets]]
        resolution = [768, 768]
          [[datasets.subsets]]
          image_dir = "piyo"
          shuffle_caption = false
          enable_bucket = false
    """
    found = find_pictures(_write(tmp_path, text))
    rows = [(e.path.name, e.caption, e.repeats, e.tag_order.keep_tokens) for e in found.entries]
    assert rows == [
        ("1.png", "hoge girl", 2, 2),
        ("2.png", "best quality, fuga boy", 5, 3),
        ("3.png", "best quality, its own caption", 5, 3),
        ("4.png", "", 2, 1),
    ]
    assert found.entries[0].tag_order == TagOrder(shuffle=True, keep_tokens=2)
    assert not found.entries[3].tag_order.shuffle
    assert not found.skipped
    notes = "\n".join(found.notes)
    assert "not applied, the run file decides: resolution, batch_size" in notes
    assert "datasets[0].subsets[2]: image_dir is that of a subset before" in notes


def test_pictures_of_subfolders_and_of_regularisation_are_named(tmp_path: Path) -> None:
    _pictures(tmp_path / "all", "1.png")
    _pictures(tmp_path / "all/deep", "2.png")
    _pictures(tmp_path / "all/used", "3.png")
    _pictures(tmp_path / "reg", "4.png")
    subsets = "".join(
        f'[[datasets.subsets]]\nimage_dir = "{name}"\nis_reg = {str(name == "reg").lower()}\n'
        for name in ("all", "all/used", "reg")
    )
    found = find_pictures(_write(tmp_path, f"[[datasets]]\n{subsets}"))
    assert [entry.path.name for entry in found.entries] == ["1.png", "3.png"]
    assert {Path(item.what).name: item.kind for item in found.skipped} == {
        "2.png": "in a subfolder",
        "4.png": "regularisation",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[datasets]", "cannot be read"),
        ("[general]", "datasets is missing"),
        ("[[datasets]]\nresolution = 512", r"datasets\.0\.subsets is missing"),
        ("[[datasets]]\n[[datasets.subsets]]", "image_dir is missing"),
        ('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "gone"', "'gone' is not a folder"),
        ('[[datasets]]\n[[datasets.subsets]]\nimage_dri = "."', "did you mean 'image_dir'"),
        ('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "."\nnum_repeats = 0', "num_repeats = 0"),
        (
            '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "."\nmetadata_file = "md.json"',
            "metadata_file is not read; write the captions",
        ),
        ("x = " + "[" * 5000, "cannot be read"),
        (f'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "{"x" * 400}"', "is not a folder"),
        (
            '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "."\ncaption_extension = "txt"',
            "write it as '.txt'",
        ),
        (
            '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "."\nnum_repeats = 1000000000000',
            "num_repeats = 1000000000000",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TrainError, match=message) as caught:
        find_pictures(_write(tmp_path, text))
    assert "\n" not in str(caught.value)
