import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sd_pipeline.picture_opener import open_picture
from sd_train import DataConfig, PictureFolder, TrainError
from sd_train.data import covering, describe
from sd_train.images import grid, to_float, to_uint8
from sd_train.seeds import generator_for


def _picture(path: Path, number: int, size: tuple[int, int] = (16, 16)) -> None:
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _folder(path: Path, count: int = 6) -> Path:
    lines = []
    for i in range(count):
        _picture(path / f"{i}.png", i)
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"picture {i}"}))
    (path / "metadata.jsonl").write_text("\n".join(lines))
    return path


def _open(path: Path, **settings: object) -> PictureFolder:
    values = {"folder": str(path), "size": 16, "holdout": 2}
    return PictureFolder(DataConfig.model_validate(values | settings))


def test_pictures_come_back_exactly_with_their_captions(tmp_path: Path) -> None:
    folder = _open(_folder(tmp_path))
    expected = np.asarray(Image.open(tmp_path / "3.png")).transpose(2, 0, 1)
    assert np.array_equal(folder.pictures([3])[0].numpy(), expected)
    assert folder.captions == [f"picture {i}" for i in range(6)]


def test_held_out_pictures_are_spread_and_never_learnt_from(tmp_path: Path) -> None:
    folder = _open(_folder(tmp_path))
    assert (folder.held_out, folder.training) == ([0, 3], [1, 2, 4, 5])


def test_captions_come_from_files_beside_the_picture_or_from_its_name(tmp_path: Path) -> None:
    for name in ("a", "b", "a_red_ball"):
        _picture(tmp_path / f"{name}.png", 0)
    (tmp_path / "a.txt").write_text("from\na text file\n")
    (tmp_path / "b.caption").write_text("from a caption file")
    assert _open(tmp_path).captions == ["from a text file", "a red ball", "from a caption file"]


@pytest.mark.parametrize("in_memory", [True, False])
def test_broken_files_are_left_out_and_told(tmp_path: Path, in_memory: bool) -> None:
    _folder(tmp_path)
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "4.png").unlink()
    with (tmp_path / "metadata.jsonl").open("a") as listing:
        listing.write('\n{"file_name": "5.png"}\n')
    folder = _open(tmp_path, in_memory=in_memory)
    assert folder.captions == ["picture 0", "picture 2", "picture 3", "picture 5"]
    assert {Path(item.what).name for item in folder.skipped} == {
        "1.png",
        "4.png",
        "metadata.jsonl line 7",
    }


def test_memory_and_disk_give_the_same_crops(tmp_path: Path) -> None:
    _folder(tmp_path)
    settings = {"crop": 8, "flip": True}
    crops = [
        _open(tmp_path, in_memory=in_memory, **settings).crops([5, 0, 2], generator_for(0, "x", 1))
        for in_memory in (True, False)
    ]
    assert crops[0].shape == (3, 3, 8, 8)
    assert torch.equal(*crops)


def test_crops_move_about_and_are_mirrored_only_on_request(tmp_path: Path) -> None:
    folder = _open(_folder(tmp_path), crop=15)
    whole = folder.pictures([1])[0]
    windows = {whole[:, y : y + 15, x : x + 15].numpy().tobytes() for y in (0, 1) for x in (0, 1)}
    crops = [folder.crops([1], generator_for(0, "x", n))[0].contiguous() for n in range(40)]
    assert {crop.numpy().tobytes() for crop in crops} == windows


def test_the_centre_square_is_cut_and_what_is_transparent_is_filled(tmp_path: Path) -> None:
    _folder(tmp_path, 2)
    Image.new("RGBA", (40, 20), (0, 0, 0, 0)).save(tmp_path / "0.png")
    for in_memory in (True, False):
        whole = _open(tmp_path, holdout=0, in_memory=in_memory, background=(1, 2, 3)).pictures([0])
        assert whole[0, :, 0, 0].tolist() == [1, 2, 3]
    wide = Image.new("RGB", (40, 20), "red")
    wide.paste("blue", (10, 0, 30, 20))
    wide.save(tmp_path / "wide.png")
    cut = covering(open_picture(tmp_path / "wide.png"), (20, 20))
    assert (cut == torch.tensor([0, 0, 255])).all()


def test_a_picture_is_learnt_from_as_often_as_its_folder_says(tmp_path: Path) -> None:
    for name in ("3_dog", "1_cat"):
        (tmp_path / name).mkdir()
        for i in range(2):
            _picture(tmp_path / name / f"{i}.png", i)
    folder = _open(tmp_path)
    assert folder.captions == ["cat", "cat", "dog", "dog"]
    assert (folder.held_out, folder.training) == ([0, 2], [1, 3, 3, 3])
    head, *summary = describe(folder)
    assert head.endswith(": 2 pictures to learn from, 4 examples an epoch, 2 held out")
    assert "with repeats: 8 pictures" in summary


def test_before_training_every_drop_is_told(tmp_path: Path) -> None:
    _folder(tmp_path)
    (tmp_path / "1.png").write_bytes(b"")
    _picture(tmp_path / "unlisted.png", 9)
    lines = describe(_open(tmp_path))
    assert f"{tmp_path}: 3 pictures to learn from, 2 held out" in lines
    assert "dropped: 1 not listed, 1 empty" in lines
    assert f"dropped {tmp_path / '1.png'}: is empty (0 bytes); fetch it again or delete it" in lines


def test_the_fingerprint_follows_the_pictures(tmp_path: Path) -> None:
    _folder(tmp_path)
    before = _open(tmp_path).fingerprint()
    assert _open(tmp_path).fingerprint() == before
    _picture(tmp_path / "2.png", 99)
    assert _open(tmp_path).fingerprint() != before


def test_the_fingerprint_follows_how_files_are_opened(tmp_path: Path) -> None:
    _folder(tmp_path)
    on_white, on_black = (
        _open(tmp_path, in_memory=False, background=colour) for colour in ((255,) * 3, (0,) * 3)
    )
    assert on_white.fingerprint() != on_black.fingerprint()


def test_a_folder_without_enough_pictures_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="is not a folder"):
        _open(tmp_path / "nothing")
    with pytest.raises(TrainError, match=r"has 2 usable pictures, not more than data\.holdout 2"):
        _open(_folder(tmp_path, 2))


def test_uint8_survives_the_way_to_float_and_back() -> None:
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_uint8(to_float(values)), values)


def test_a_grid_fills_rows_first() -> None:
    pictures = torch.arange(3, dtype=torch.uint8).reshape(3, 1, 1, 1)
    assert grid(pictures, 2).tolist() == [[[0, 1], [2, 0]]]


def test_tags_are_learnt_in_orders_of_which_the_first_is_as_written(tmp_path: Path) -> None:
    for number in range(3):
        _picture(tmp_path / f"{number}.png", number)
        (tmp_path / f"{number}.txt").write_text(f"{number}, red, small, old, loud")
    folder = _open(tmp_path, shuffle_tags=True, keep_tags=1, tag_orders=6)
    orders = folder.in_orders(folder.captions, seed=5)
    assert [each[0] for each in orders] == folder.captions
    for caption, each in zip(folder.captions, orders, strict=True):
        assert len(each) == 6
        assert len(set(each)) > 3
        assert {text.split(", ")[0] for text in each} == {caption[0]}
        assert {tuple(sorted(text.split(", "))) for text in each} == {
            tuple(sorted(caption.split(", ")))
        }
    assert orders == _open(tmp_path, shuffle_tags=True, keep_tags=1, tag_orders=6).in_orders(
        folder.captions, seed=5
    )
    plain = _open(tmp_path)
    assert plain.in_orders(plain.captions, seed=5) == [[caption] for caption in plain.captions]


def test_a_dataset_file_shuffles_the_tags_of_some_folders(tmp_path: Path) -> None:
    subsets = []
    for name in ("tags", "prose"):
        (tmp_path / name).mkdir()
        _picture(tmp_path / name / "0.png", len(name))
        (tmp_path / name / "0.txt").write_text("one, two, three, four")
        told = f"shuffle_caption = {str(name == 'tags').lower()}"
        subsets.append(f'[[datasets.subsets]]\nimage_dir = "{name}"\n{told}\n')
    (tmp_path / "data.toml").write_text("[[datasets]]\n" + "".join(subsets))
    folder = _open(tmp_path / "data.toml", holdout=0)
    tags, prose = folder.in_orders(folder.captions, seed=0)
    assert len(tags) == len(prose) == folder.config.tag_orders
    assert len(set(tags)) > 1
    assert set(prose) == {"one, two, three, four"}
