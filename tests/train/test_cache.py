"""What encoders say is computed once: whatever is killed, damaged or too large."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sd_train import TrainError
from sd_train.cache import Cache, Rows, first_for_all

KEYS = [f"piece {number}" for number in range(6)]
SIZE = 4 * 3 * 4  # bytes of a piece


def piece(number: int) -> dict[str, Tensor]:
    return {"mean": torch.arange(12.0).reshape(4, 3) + 100 * number}


class Encoder:
    """Counts what it is asked for, and breaks off before a piece."""

    def __init__(self, breaks_off_at: int | None = None) -> None:
        self.asked: list[int] = []
        self.breaks_off_at = breaks_off_at

    def __call__(self, number: int) -> dict[str, Tensor]:
        if number == self.breaks_off_at:
            raise KeyboardInterrupt
        self.asked.append(number)
        return piece(number)


def whole() -> Tensor:
    return torch.cat([piece(number)["mean"] for number in range(len(KEYS))])


def cache(folder: Path, told: list[str] | None = None, limit: int = 10**6) -> Cache:
    return Cache(folder=folder, limit=limit, tell=[].append if told is None else told.append)


def test_rows_of_pieces_are_those_of_the_whole(tmp_path: Path) -> None:
    rows = cache(tmp_path).rows("mean", KEYS, piece)["mean"]
    assert isinstance(rows, Rows)
    assert len(rows) == 24
    chosen = torch.tensor([23, 0, 7, 7])
    assert torch.equal(rows[chosen], whole()[chosen])
    assert torch.equal(rows[chosen.tolist()], Cache().rows("mean", KEYS, piece)["mean"][chosen])


def test_who_wants_shapes_alone_has_one_piece_made_and_the_others_counted(tmp_path: Path) -> None:
    cache(tmp_path).rows("mean", KEYS[:2], piece)
    encoder = Encoder()
    with first_for_all() as to_encode:
        rows = cache(tmp_path).rows("mean", KEYS, encoder)["mean"]
        assert encoder.asked == [0]
        assert torch.equal(rows[[23, 3]], piece(0)["mean"][[3, 3]])
        assert to_encode.num_bytes == 4 * SIZE
        assert to_encode.seconds > 0
        assert len(list(tmp_path.iterdir())) == 2, "nothing is written"
        with pytest.raises(TrainError, match=r"data\.cache_gb"):
            cache(tmp_path, limit=5 * SIZE).rows("mean", KEYS, piece)
        before = to_encode.num_bytes
        cache(tmp_path).rows("mean", KEYS[:2], encoder)
        assert encoder.asked == [0], "what is there is read"
        assert to_encode.num_bytes == before
    assert torch.equal(cache(tmp_path).rows("mean", KEYS, piece)["mean"][range(24)], whole())


def test_rows_of_halves_are_read_under_an_autocast_to_the_other_halves() -> None:
    rows = Rows([torch.arange(3.0).half()[:, None], torch.arange(3.0, 5.0).half()[:, None]])
    with torch.autocast("cpu", torch.bfloat16):
        assert rows[[4, 0, 3]].flatten().tolist() == [4.0, 0.0, 3.0]
    assert rows[torch.tensor([1])].dtype == torch.float16


def test_what_was_finished_before_the_end_is_not_computed_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache(tmp_path).rows("mean", KEYS, Encoder(breaks_off_at=4))
    second = Encoder()
    rows = cache(tmp_path).rows("mean", KEYS, second)["mean"]
    assert second.asked == [4, 5]
    assert torch.equal(rows[range(24)], whole())
    # A picture that comes or goes costs its piece alone.
    third = Encoder()
    cache(tmp_path).rows("mean", [*KEYS[:2], "other", *KEYS[3:]], third)
    assert third.asked == [2]


@pytest.mark.parametrize("damage", ["a bit", "the end", "all"])
def test_damaged_pieces_are_told_and_made_anew(tmp_path: Path, damage: str) -> None:
    cache(tmp_path).rows("mean", KEYS, piece)
    file = sorted(tmp_path.iterdir())[2]
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes({"a bit": bytes(content), "the end": content[:-7], "all": b""}[damage])
    told: list[str] = []
    again = Encoder()
    rows = cache(tmp_path, told).rows("mean", KEYS, again)["mean"]
    assert len(again.asked) == 1
    assert told == [f"{file} is damaged; what it held is made anew"]
    assert torch.equal(rows[range(24)], whole())


def test_more_than_the_limit_is_refused_after_the_first_piece(tmp_path: Path) -> None:
    encoder = Encoder()
    with pytest.raises(TrainError, match=r"cache of mean takes about .* data\.cache_gb allows"):
        cache(tmp_path, limit=6 * SIZE - 1).rows("mean", KEYS, encoder)
    assert encoder.asked == [0]
    cache(tmp_path).rows("mean", KEYS, piece)
    with pytest.raises(TrainError, match=r"raise it"):
        cache(tmp_path, limit=6 * SIZE).rows("mean", KEYS, encoder)


def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    for name in ("old", "older"):
        cache(tmp_path).rows(name, KEYS[:2], piece)
    limit = 8 * next(tmp_path.iterdir()).stat().st_size + 1024
    room = cache(tmp_path, limit=limit)
    for path in tmp_path.glob("old*"):
        os.utime(path, (0, 2 if path.name.startswith("old-") else 1))
    room.rows("old", KEYS[:2], Encoder(breaks_off_at=0))  # used again, and nothing to compute
    left_behind = tmp_path / ".tmp-0-mean.safetensors"
    left_behind.write_bytes(b"of a process that was killed")
    os.utime(left_behind, (0, 0))
    room.rows("mean", KEYS, piece)
    names = [path.name.partition("-")[0] for path in tmp_path.iterdir()]
    assert sorted(names) == ["mean"] * 6 + ["old"] * 2
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit


def _slowly(number: int) -> dict[str, Tensor]:
    time.sleep(0.01)
    return piece(number)


def _killed_half_way(number: int) -> dict[str, Tensor]:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return _slowly(number)


def test_several_processes_fill_it_at_once_though_some_are_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    run = cache(tmp_path).rows
    computing = (_killed_half_way, _killed_half_way, _slowly, _slowly)
    others = [context.Process(target=run, args=("mean", KEYS, each)) for each in computing]
    for each in others:
        each.start()
    assert torch.equal(run("mean", KEYS, _slowly)["mean"][range(24)], whole())
    for each in others:
        each.join(10)
    assert others[0].exitcode == -signal.SIGKILL
    assert [each.exitcode for each in others[2:]] == [0, 0]
    whole_ones = [path for path in tmp_path.iterdir() if not path.name.startswith(".tmp-")]
    assert len(whole_ones) == len(KEYS)
    assert torch.equal(run("mean", KEYS, Encoder(breaks_off_at=0))["mean"][range(24)], whole())
