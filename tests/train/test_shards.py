"""Pictures are learnt from tar shards as from a folder, and no tar file does any harm."""

import gzip
import io
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shards import BLOCK, files_of, header, write_shard
from toy import Recorder, assert_same_checkpoint

from sd_train import DataConfig, PictureFolder, TrainError, VAETrainConfig, run
from sd_train.data import CropSource
from sd_train.data_check import DataReport, check_pictures, find_pictures
from sd_train.data_summary import file_lines
from sd_train.settings import load_toml
from sd_train.stream import BatchStream

END = bytes(2 * BLOCK)


def _png(number: int, size: tuple[int, int] = (32, 32)) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(8):
        (folder / f"{i:04}.png").write_bytes(_png(i, (32, 32 + 4 * i)))
        (folder / f"{i:04}.txt").write_text(f"picture {i}")
    return folder


@pytest.fixture
def pattern(pictures: Path, tmp_path: Path) -> str:
    files = files_of(pictures)
    (tmp_path / "shards").mkdir()
    write_shard(tmp_path / "shards/00.tar", files[:10])
    write_shard(tmp_path / "shards/01.tar", files[10:])
    return str(tmp_path / "shards/{00..01}.tar")


def _open(place: str, **settings: object) -> PictureFolder:
    values = {"folder": place, "size": 32, "crop": 16, "flip": True, "holdout": 2}
    return PictureFolder(DataConfig.model_validate(values | settings))


def _check(place: Path | str) -> DataReport:
    config = DataConfig.model_validate({"folder": str(place), "size": 32})
    return check_pictures(find_pictures(str(place)), config)


def _captions(report: DataReport) -> dict[str, str]:
    return {picture.entry.path.name: picture.entry.caption for picture in report.used}


def _kinds(report: DataReport) -> dict[str, str]:
    items = report.skipped + report.others
    return {item.what.rpartition(":")[2]: item.kind for item in items}


def _dropped(shard: Path) -> str:
    """Return what is said of a shard of which something is wrong."""
    report = _check(shard)
    (reason,) = (item.reason for item in report.skipped if item.what == str(shard))
    assert all(line.isprintable() for line in file_lines(report))
    assert ";" in reason  # the mend comes last
    return reason


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_folder_and_its_pictures_in_two_shards_give_the_same_batches(
    pictures: Path, pattern: str, in_memory: bool
) -> None:
    folders = [
        _open(place, in_memory=in_memory)
        for place in (str(pictures), pattern, str(Path(pattern).parent))
    ]
    assert len({folder.fingerprint() for folder in folders}) == 1
    plain = folders[0]
    for folder in folders[1:]:
        assert folder.captions == plain.captions
        assert (folder.held_out, folder.training) == (plain.held_out, plain.training)
        assert torch.equal(folder.pictures(folder.held_out), plain.pictures(plain.held_out))
        streams = [
            BatchStream(CropSource(each), batch_size=3, seed=0, position=0, num_workers=2)
            for each in (folder, plain)
        ]
        for _ in range(5):
            ours, theirs = (stream.take()["images"] for stream in streams)
            assert torch.equal(ours, theirs)
        for stream in streams:
            stream.close()


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_run_stopped_and_resumed_from_shards_equals_one_straight_from_the_folder(
    pictures: Path, pattern: str, tmp_path: Path, in_memory: bool
) -> None:
    def config(place: str) -> VAETrainConfig:
        fields = {"latent_channels": 4, "block_out_channels": [8, 8], "norm_num_groups": 4}
        trainer = {
            "steps": 3,
            "batch_size": 2,
            "validate_every": 0,
            "save_every": 0,
            "device": "cpu",
            "tensorboard": False,
        }
        data = {"folder": place, "size": 32, "crop": 16, "holdout": 2, "in_memory": in_memory}
        vae = {"preset": "scenes", "fields": fields}
        return VAETrainConfig.model_validate({"trainer": trainer, "data": data, "vae": vae})

    straight = run(config(str(pictures)), tmp_path / "straight")
    run(config(pattern), tmp_path / "resumed", Recorder(1))
    settings = load_toml(VAETrainConfig, tmp_path / "resumed/config.toml")
    assert settings.data.folder == pattern
    resumed = run(settings, tmp_path / "resumed", resume=True)
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)


def test_captions_come_from_text_or_json_beside_the_picture_or_from_its_name(
    tmp_path: Path,
) -> None:
    files = {
        "text.txt": b"from\na text file",
        "both.json": b'{"caption": "from json"}',
        "both.caption": b"\xef\xbb\xbffrom a caption file",
        "json.json": b'{"width": NaN, "caption": null, "text": "from json"}',
        "no words.json": b'{"caption": null}',
        "deep/er/text.txt": b"of a folder",
    }
    names = ("text", "both", "json", "no words", "a_red_ball", "deep/er/text")
    # The pictures come last, and all of a sample in any order.
    files |= {f"{name}.png": _png(i) for i, name in enumerate(names)}
    report = _check(write_shard(tmp_path / "0.tar", files.items()))
    assert _captions(report) == {
        "text.png": "from a text file",
        "both.png": "from a caption file",
        "json.png": "from json",
        "no words.png": "no words",
        "a_red_ball.png": "a red ball",
        "deep/er/text.png": "of a folder",
    }
    assert report.notes == ["shards: 1"]


def test_a_caption_that_cannot_be_read_leaves_its_picture_out_by_name(tmp_path: Path) -> None:
    captions = {
        "latin.txt": "café".encode("latin-1"),
        "book.txt": b"word " * 20_000,
        "list.json": b'{"caption": ["a", "b"]}',
        "half.json": b'{"caption": "\\ud800"}',
        "torn.json": b'{"caption": "a d',
        "nested.json": b"[" * 100_000,
        "large.json": b" " * (2**20 + 1),
    }
    files = captions | {f"{Path(name).stem}.png": _png(0) for name in captions}
    report = _check(write_shard(tmp_path / "0.tar", files.items()))
    assert not report.used
    assert {item.kind for item in report.skipped} == {"caption file"}
    assert len(report.skipped) == len(captions)
    assert all(f"its caption file {Path(item.what).stem.rpartition(':')[2]}" in item.reason
               for item in report.skipped)  # fmt: skip


def test_every_member_is_named_once_as_used_or_not_and_why(tmp_path: Path) -> None:
    good = _png(0)
    files = {
        "good.png": good,
        "good.txt": b"a red dog",
        "good.cls": b"3",
        "again.png": good,
        "empty.png": b"",
        "torn.png": good[: len(good) // 2],
        "photo.heic": b"ftyp",
        "orphan.txt": b"a caption",
        "._good.png": b"what a Mac adds",
        "line\nbreak\x1b[31m.png": b"x",
        "nothing": b"",
    }
    shard = write_shard(tmp_path / "0.tar", files.items())
    odd = (
        header("folder", kind=tarfile.DIRTYPE)
        + header("soft.png", kind=tarfile.SYMTYPE, target="/etc/passwd")
        + header("hard.png", kind=tarfile.LNKTYPE, target="good.png")
        + header("device.png", kind=tarfile.CHRTYPE)
        + header("pipe.png", kind=tarfile.FIFOTYPE)
        + header("kind.png", kind=b"Q")
        + header("sparse.png", kind=tarfile.GNUTYPE_SPARSE)
        + header("good.png")
    )
    plain = shard.read_bytes().rstrip(b"\0")
    shard.write_bytes(plain + bytes(-len(plain) % BLOCK) + odd + END)
    report = _check(tmp_path)
    assert [picture.entry.path.name for picture in report.used] == ["good.png", "again.png"]
    assert [remark.kind for remark in report.used[1].remarks] == ["uncaptioned", "duplicate"]
    assert _kinds(report) == {
        "good.txt": "caption file",
        "good.cls": "label file",
        "empty.png": "empty",
        "torn.png": "truncated",
        "photo.heic": "format not read",
        "orphan.txt": "caption without a picture",
        "._good.png": "hidden",
        "line\nbreak\x1b[31m.png": "not a picture",
        "nothing": "other file",
        "folder": "folder",
        "soft.png": "link",
        "hard.png": "link",
        "device.png": "not a file",
        "pipe.png": "not a file",
        "kind.png": "not a file",
        "sparse.png": "sparse",
        "good.png": "same name",
    }
    lines = list(file_lines(report))
    assert len(lines) == 2 + 17
    assert all(line.isprintable() for line in lines)


def test_names_that_lead_out_of_the_shard_are_names_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    outside = tmp_path / "outside.png"
    names = ("../outside.png", str(outside), "a/../../b.png", "C:\\c.png", "x" * 3000 + ".png")
    write_shard(tmp_path / "shards/0.tar", [(name, _png(i)) for i, name in enumerate(names)])
    report = _check(tmp_path / "shards")
    assert [picture.entry.path.name for picture in report.used] == list(names)
    assert [path.name for path in tmp_path.rglob("*")] == ["shards", "0.tar"]


@pytest.mark.parametrize(
    "tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_all_formats_of_tar_are_read(tmp_path: Path, tar_format: int) -> None:
    names = [f"{'folder' * 10}/{'deeper' * 12}/{i}.png" for i in range(3)]
    files = [(name, _png(i)) for i, name in enumerate(names)]
    report = _check(write_shard(tmp_path / "0.tar", files, format=tar_format))
    assert list(_captions(report)) == names
    assert not report.skipped


def test_of_a_shard_that_is_cut_off_the_whole_members_are_used_and_it_is_named(
    tmp_path: Path,
) -> None:
    shard = write_shard(tmp_path / "0.tar", [(f"{i}.png", _png(i)) for i in range(3)])
    whole = shard.read_bytes()
    second = whole.index(b"1.png\0")
    third = whole.index(b"2.png\0")
    cases = {
        second: ("ends before the mark of its end", 1),
        second + 100: ("ends before the mark of its end", 1),
        second + BLOCK + 100: ("ends within 1.png", 1),
        third - 1: ("ends too early", 2),
        third + BLOCK: ("ends within 2.png", 2),
    }
    for place, (says, num_used) in cases.items():
        shard.write_bytes(whole[:place])
        assert says in _dropped(shard)
        assert len(_check(shard).used) == num_used
    shard.write_bytes(whole[:third] + b"\xff" * BLOCK + whole[third + BLOCK :])
    assert f"no header at byte {third:,}" in _dropped(shard)
    assert len(_check(shard).used) == 2


def test_headers_that_lie_are_named_and_take_no_memory_and_no_time(tmp_path: Path) -> None:
    picture = _png(0)
    first = header("0.png", len(picture)) + picture + bytes(-len(picture) % BLOCK)
    long_name = header("././@LongLink", 5, tarfile.GNUTYPE_LONGNAME) + b"name".ljust(BLOCK, b"\0")
    record = b"21 size=-99999999999\n"
    cases = {
        "a size beyond the file": header("1.png", 8**11 - 1),
        "a size below nothing": header("1.png", -2 * BLOCK),
        "a size below nothing in an extended header": header("x", len(record), tarfile.XHDTYPE)
        + record.ljust(BLOCK, b"\0")
        + header("1.png", 7),
        "an endless name": header("././@LongLink", 8**11 - 1, tarfile.GNUTYPE_LONGNAME),
        "headers of headers": long_name * 3000 + header("1.png"),
        "an extended header that is none": header("x", 9, tarfile.XHDTYPE)
        + b"999999 =\n".ljust(BLOCK, b"\0"),
    }
    for case, odd in cases.items():
        shard = tmp_path / "0.tar"
        shard.write_bytes(first + odd + END)
        report = _check(shard)
        assert [p.entry.path.name for p in report.used] == ["0.png"], case
        assert report.skipped[0].kind in ("damaged", "truncated"), case


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_whatever_the_bytes_a_shard_is_read_to_some_end(tmp_path: Path, tar_format: int) -> None:
    names = ("a.png", "é" * 120 + ".png", "a.txt")
    whole = write_shard(tmp_path / "0.tar", [(name, b"x") for name in names], format=tar_format)
    content, chance = whole.read_bytes().rstrip(b"\0"), random.Random(tar_format)
    for _ in range(300):
        mutant = bytearray(content[: chance.randrange(len(content))] or content) + END
        for _ in range(chance.randint(1, 8)):
            mutant[chance.randrange(len(mutant))] = chance.choice((0, 0x80, 0xFF, 0x37, 0x78))
        whole.write_bytes(mutant)
        found = find_pictures(str(whole))
        assert len(found.entries) <= 3


def test_what_is_no_plain_tar_file_is_named_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    write_shard(tmp_path / "plain/0.tar", [("0.png", _png(0))])
    packed = gzip.compress((tmp_path / "plain/0.tar").read_bytes())
    folder = tmp_path / "shards"
    folder.mkdir()
    contents = {
        "a.tar": b"",
        "b.tar": b"no tar file" * 100,
        "c.tar": packed,
        "d.tar.gz": packed,
        "e.tar": END,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    reasons = {Path(item.what).name: item.reason for item in _check(folder).skipped}
    assert reasons == {
        "a.tar": "is empty (0 bytes); fetch the shard again or delete it",
        "b.tar": "is no tar file; fetch the shard again or leave it out",
        "c.tar": "is compressed with gzip, so no picture can be sought in it; unpack it to a plain "
        ".tar",
        "d.tar.gz": reasons["c.tar"],
    }
    with pytest.raises(TrainError, match=r"d\.tar\.gz is compressed.*; unpack it to a plain \.tar"):
        find_pictures(str(folder / "d.tar.gz"))


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("{00..02}.tar", r"02\.tar is not there; correct the name"),
        ("{01..00}.tar", r"\{01\.\.00\} must count up"),
        ("{0..99999}{0..9}.tar", "at most 100,000 shards"),
        ("*.tar", r"\*\.tar is not there"),
        ("x" * 300 + ".tar", "is not there"),
    ],
)
def test_a_pattern_that_names_no_shards_is_refused(tmp_path: Path, pattern: str, says: str) -> None:
    for name in ("00.tar", "01.tar"):
        write_shard(tmp_path / name, [("0.png", _png(0))])
    assert len(find_pictures(str(tmp_path / "{00..01}.tar")).entries) == 2
    with pytest.raises(TrainError, match=says):
        find_pictures(str(tmp_path / pattern))


def test_beside_pictures_a_shard_is_named_and_not_read(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", [("inside.png", _png(0))])
    (tmp_path / "outside.png").write_bytes(_png(1))
    report = _check(tmp_path)
    assert [picture.entry.path.name for picture in report.used] == ["outside.png"]
    assert [(item.what, item.kind) for item in report.skipped] == [
        (str(tmp_path / "0.tar"), "shard")
    ]


def test_a_shard_that_was_changed_behind_a_run_is_named(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", [(f"{i}.png", _png(i)) for i in range(2)])
    folder = _open(str(shard), in_memory=False, holdout=0)
    with shard.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(TrainError, match=r"can no longer be read: .*0\.tar:1\.png cannot be read"):
        folder.pictures([1])
