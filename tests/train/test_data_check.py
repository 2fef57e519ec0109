import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sd_textenc import clip_tokenizer
from sd_train import DataConfig, TrainError
from sd_train.data_check import DataReport, check_pictures, find_pictures
from sd_train.data_summary import document, file_lines, summarise, summary_lines


def _picture(path: Path, number: int, size: tuple[int, int] = (32, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def _captioned(path: Path, number: int, caption: str, **options: tuple[int, int]) -> None:
    _picture(path, number, **options).with_suffix(".txt").write_text(caption)


def _check(folder: Path, **settings: object) -> DataReport:
    config = DataConfig.model_validate({"folder": str(folder), "size": 32} | settings)
    return check_pictures(find_pictures(str(folder)), config)


def _kinds(report: DataReport) -> dict[str, str]:
    return {Path(item.what).name: item.kind for item in report.skipped + report.others}


def test_every_file_of_a_folder_is_named_once(tmp_path: Path) -> None:
    _captioned(tmp_path / "good.png", 0, "a red dog")
    _picture(tmp_path / "no_caption.png", 1)
    _captioned(tmp_path / "latin.png", 2, "ok")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    _captioned(tmp_path / "book.png", 3, "word " * 20_000)
    contents = {
        "empty.png": "",
        "page.jpg": "<html>",
        "photo.heic": "ftyp",
        "orphan.txt": "a caption",
        "README.md": "read me",
        ".DS_Store": "x",
        ".cache/hidden.png": "x",
        "line\nbreak\x1b[31m.png": "x",
    }
    for name, text in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "linked").symlink_to(tmp_path, target_is_directory=True)
    report = _check(tmp_path)
    assert [picture.entry.caption for picture in report.used] == ["a red dog", "no caption"]
    assert _kinds(report) == {
        "latin.png": "caption file",
        "book.png": "caption file",
        "empty.png": "empty",
        "page.jpg": "not a picture",
        "photo.heic": "format not read",
        "pipe.png": "not a file",
        "linked": "link",
        "line\nbreak\x1b[31m.png": "not a picture",
        "orphan.txt": "caption without a picture",
        "good.txt": "caption file",
        "latin.txt": "caption file",
        "book.txt": "caption file",
        "README.md": "other file",
        ".DS_Store": "hidden",
        ".cache": "hidden",
    }
    lines = list(file_lines(report))
    assert len(lines) == 2 + 15
    assert all(line.isprintable() for line in lines)


def test_file_names_that_are_no_text_are_shown_and_captioned(tmp_path: Path) -> None:
    _picture(tmp_path / "plain.png", 0).rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    report = _check(tmp_path)
    assert [picture.entry.caption for picture in report.used] == ["caf"]
    json.dumps(document(report, summarise(report)), ensure_ascii=False).encode()
    assert any("caf\\udce9.png" in line for line in file_lines(report))


def test_what_is_odd_about_used_pictures_is_said(tmp_path: Path) -> None:
    _captioned(tmp_path / "a.png", 0, "a red dog")
    Image.open(tmp_path / "a.png").save(tmp_path / "b.bmp")
    (tmp_path / "b.txt").write_text("the same in another file")
    _captioned(tmp_path / "c.png", 1, ".")
    _captioned(tmp_path / "d.png", 2, "small", size=(31, 200))
    _picture(tmp_path / "e.png", 3)
    report = _check(tmp_path)
    remarks = {
        picture.entry.path.name: [remark.kind for remark in picture.remarks]
        for picture in report.used
    }
    assert remarks == {
        "a.png": [],
        "b.bmp": ["duplicate"],
        "c.png": ["near-empty caption"],
        "d.png": ["too small"],
        "e.png": ["uncaptioned"],
    }
    assert str(tmp_path / "a.png") in report.used[1].remarks[0].text
    assert not report.skipped


def test_a_listing_accounts_for_its_lines_and_for_pictures_it_forgets(tmp_path: Path) -> None:
    for name in ("a", "b", "sub/c"):
        _picture(tmp_path / f"{name}.png", ord(name[-1]))
    lines = [
        b"\xef\xbb\xbf" + json.dumps({"file_name": "a.png", "text": "a dog"}).encode(),
        b'{"file_name": "./sub/c.png", "text": "half \\ud800"}',
        b'{"file_name": "gone.png", "text": "gone"}',
        b'{"file_name": "' + b"x" * 400 + b'.png", "text": "long"}',
        b"[" * 100_000,
        b'"only text"',
        b"\xff\xfe not UTF-8",
        b'{"file_name": "a\\u0000.png", "text": "null"}',
        b"",
    ]
    (tmp_path / "metadata.jsonl").write_bytes(b"\n".join(lines))
    report = _check(tmp_path)
    assert [picture.entry.caption for picture in report.used] == ["a dog"]
    kinds = [item.kind for item in report.skipped]
    assert kinds.count("listing") == 7
    assert _kinds(report)["b.png"] == "not listed"
    assert len(kinds) == 8
    assert all(len(line) < 700 for line in file_lines(report))


def test_where_a_listing_stands_folder_names_give_no_repeats_and_that_is_said(
    tmp_path: Path,
) -> None:
    _picture(tmp_path / "10_dog/a.png", 0)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "10_dog/a.png", "text": "my dog"}')
    report = _check(tmp_path)
    assert [(p.entry.caption, p.entry.repeats) for p in report.used] == [("my dog", 1)]
    assert report.notes == ["metadata.jsonl stands, so folder 10_dog gives no repeats"]


def test_kohya_folders_give_repeats_and_class_captions(tmp_path: Path) -> None:
    _picture(tmp_path / "10_sks dog/1.png", 0)
    _captioned(tmp_path / "10_sks dog/deeper/2.png", 1, "its own caption")
    _picture(tmp_path / "0_cat/3.png", 2)
    _picture(tmp_path / "2023_summer/at_sea.png", 3)
    _picture(tmp_path / "plain/a_boat.png", 4)
    report = _check(tmp_path)
    assert [(p.entry.caption, p.entry.caption_from, p.entry.repeats) for p in report.used] == [
        ("sks dog", "class", 10),
        ("its own caption", "file", 10),
        ("at sea", "name", 1),
        ("a boat", "name", 1),
    ]
    assert _kinds(report)["3.png"] == "0 repeats"
    summary = summarise(report)
    assert (summary.num_used, summary.num_examples) == (4, 22)
    notes = "\n".join(report.notes)
    assert "10 repeats, class 'sks dog'" in notes
    assert "2023_summer: not taken for 2023 repeats" in notes


def test_a_summary_counts_sizes_buckets_and_words(tmp_path: Path) -> None:
    _captioned(tmp_path / "a.png", 0, "A dog, a cat", size=(512, 512))
    _captioned(tmp_path / "b.png", 1, "a dog", size=(1000, 520))
    _captioned(tmp_path / "c.png", 2, "a dog", size=(260, 500))
    _captioned(tmp_path / "d.png", 3, "word " * 100, size=(100, 30))
    report = _check(tmp_path, size=512)
    summary = summarise(report, clip_tokenizer())
    assert summary.shorter_sides == {"below 64": 1, "256 to 511": 1, "512 to 767": 2}
    assert summary.buckets == dict.fromkeys(("512 x 512", "704 x 320", "320 x 704", "832 x 256"), 1)
    captions = summary.captions
    assert captions is not None
    assert (captions.num_distinct, captions.num_words, captions.num_cut) == (3, (2, 3.0, 100), 1)
    assert captions.frequent_words[:3] == [("word", 100), ("a", 4), ("dog", 3)]
    lines = summary_lines(summary, report)
    assert lines[0] == "pictures: 4 used, 0 dropped; 4 other files"
    assert "used, but: 2 too small" in lines
    assert "shorter sides: below 64 (1), 256 to 511 (1), 512 to 767 (2)" in lines
    assert all(len(line) < 300 for line in lines)


def test_an_empty_folder_has_an_empty_summary(tmp_path: Path) -> None:
    report = _check(tmp_path)
    assert summary_lines(summarise(report), report) == [
        "pictures: 0 used, 0 dropped; 0 other files"
    ]
    with pytest.raises(TrainError, match="is not a folder; name one with pictures"):
        find_pictures(str(tmp_path / "nothing"))


def test_the_report_is_the_same_every_time(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(12)]
    random.Random(0).shuffle(names)
    for name in names:
        _picture(tmp_path / name, int(name[0]))
    rows = [document(report, summarise(report)) for report in (_check(tmp_path), _check(tmp_path))]
    assert rows[0] == rows[1]
    assert [Path(row["file"]).name for row in rows[0]["used"]] == sorted(names)


def test_captions_that_are_lost_or_no_text_leave_their_pictures_out_by_name(
    tmp_path: Path,
) -> None:
    for number, name in enumerate(("wide", "null", "link", "folder", "pipe", "capitals")):
        _picture(tmp_path / f"{name}.png", number)
    (tmp_path / "wide.txt").write_bytes("a bear".encode("utf-16-le"))
    (tmp_path / "null.txt").write_bytes(b"a\0bear")
    (tmp_path / "link.txt").symlink_to("/nowhere/at/all.txt")
    (tmp_path / "folder.txt").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "capitals.TXT").write_text("a bear")
    report = _check(tmp_path)
    assert [picture.entry.caption for picture in report.used] == ["a bear"]
    reasons = {Path(item.what).name: item.reason for item in report.skipped}
    assert "null.txt has zero bytes and is no text" in reasons["null.png"]
    assert "wide.txt has zero bytes and is no text" in reasons["wide.png"]
    assert "link.txt cannot be read (No such file" in reasons["link.png"]
    assert "folder.txt is a folder, pipe or device" in reasons["folder.png"]
    assert "pipe.txt is a folder, pipe or device" in reasons["pipe.png"]


def test_a_listing_leads_out_of_its_folder_nowhere(tmp_path: Path) -> None:
    _picture(tmp_path / "outside.png", 0)
    folder = tmp_path / "data"
    _picture(folder / "a.png", 1)
    _picture(folder / "b.png", 2)
    lines = [
        {"file_name": "../outside.png", "text": "outside"},
        {"file_name": str(tmp_path / "outside.png"), "text": "outside"},
        {"file_name": "sub/../../outside.png", "text": "outside"},
        {"file_name": str(folder / "a.png"), "text": "inside"},
        {"file_name": "./a.png", "text": "inside"},
        {"file_name": "a.png", "text": "another"},
        {"file_name": 5, "text": "a number"},
        {"file_name": "b.png", "text": ["a", "list"]},
    ]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    report = _check(folder)
    used = [(picture.entry.path, picture.entry.caption) for picture in report.used]
    assert used == [(folder / "a.png", "inside"), (folder / "a.png", "another")]
    assert "with another caption" in report.used[1].remarks[0].text
    reasons = [item.reason for item in report.skipped]
    assert sum("lies outside of" in reason for reason in reasons) == 2
    assert "says what line 4 says; remove one of them" in reasons
    assert 'has a file_name that is no text; write {"file_name": ..., "text": ...}' in reasons
    assert any("its text is no string" in reason for reason in reasons)


def test_folders_named_like_pictures_and_shared_captions_are_told(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    _captioned(tmp_path / "twin.jpg", 0, "a twin")
    _picture(tmp_path / "twin.png", 1)
    _captioned(tmp_path / "masked.png", 2, "its mask is a link to nothing")
    (tmp_path / "masked.mask.png").symlink_to("/nowhere/at/all.png")
    report = _check(tmp_path)
    assert _kinds(report)["folder.png"] == "folder"
    assert _kinds(report)["masked.png"] == "mask"
    remarks = [[remark.kind for remark in picture.remarks] for picture in report.used]
    assert remarks == [[], ["shared caption"]]
