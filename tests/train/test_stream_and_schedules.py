import math
from collections import Counter

import pytest
import torch
from toy import ToySource, config

from sd_train.ema import Ema
from sd_train.optim import lr_scale
from sd_train.seeds import derive_seed
from sd_train.stream import BatchStream


def _seen(position: int, batches: int, seed: int = 0) -> list[int]:
    source = ToySource(10, shift=False)
    stream = BatchStream(source, batch_size=4, seed=seed, position=position, num_workers=0)
    for _ in range(batches):
        stream.take()
    return source.seen


def test_every_example_is_seen_once_an_epoch_in_a_new_order() -> None:
    seen = _seen(0, 5)
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_a_stream_goes_on_from_any_position() -> None:
    assert _seen(8, 3) == _seen(0, 5)[8:]


def test_the_order_depends_on_the_seed() -> None:
    assert _seen(0, 5, seed=1) != _seen(0, 5, seed=0)


GROUPS = ([*range(13)], [*range(13, 20)], [*range(20, 23)])


def _grouped(position: int, batches: int, part: int = 0, num_parts: int = 1) -> list[list[int]]:
    source = ToySource(23, shift=False)
    source.groups = [list(group) for group in GROUPS]
    stream = BatchStream(
        source,
        batch_size=4,
        seed=0,
        position=position + part * 4,
        num_workers=0,
        num_parts=num_parts,
    )
    for _ in range(batches):
        stream.take()
    return [source.seen[i : i + 4] for i in range(0, len(source.seen), 4)]


def test_a_batch_is_of_one_group_and_all_examples_are_seen_equally_often() -> None:
    batches = _grouped(0, 23)  # as many as there are examples: four epochs
    for batch in batches:
        assert any(set(batch) <= set(group) for group in GROUPS)
    assert Counter(index for batch in batches for index in batch) == dict.fromkeys(range(23), 4)
    sizes = [next(n for n, group in enumerate(GROUPS) if batch[0] in group) for batch in batches]
    assert sizes != sorted(sizes)
    assert _grouped(23 * 4, 23) != batches


def test_groups_go_on_from_any_batch_and_are_dealt_out_to_processes() -> None:
    straight = _grouped(0, 30)
    assert _grouped(11 * 4, 19) == straight[11:]
    for part in (0, 1):
        assert _grouped(4 * 4, 10, part, 2) == straight[4 + part : 24 : 2]


def test_purposes_do_not_share_random_numbers() -> None:
    seeds = {derive_seed(0, purpose, n) for purpose in ("a", "b") for n in range(100)}
    assert len(seeds) == 200


def test_the_rate_warms_up_linearly_and_falls_on_a_half_cosine() -> None:
    settings = config(steps=110, warmup_steps=10, lr_final=0.1)
    assert [lr_scale(step, settings) for step in (0, 4, 9)] == [0.1, 0.5, 1.0]
    assert lr_scale(60, settings) == pytest.approx(0.55)
    assert lr_scale(110, settings) == pytest.approx(0.1)
    constant = config(steps=110, warmup_steps=0, lr_schedule="constant")
    assert {lr_scale(step, constant) for step in range(110)} == {1.0}


def test_the_average_follows_its_definition_and_swaps_in_and_out_exactly() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    ema = Ema([parameter], decay=0.9, power=0.5)
    expected = 0.0
    for step in range(1, 200):
        parameter.data.fill_(step)
        ema.update(step)
        decay = min(0.9, 1 - 1 / math.sqrt(1 + step))
        expected = decay * expected + (1 - decay) * step
    assert ema.averages[0].tolist() == pytest.approx([expected] * 3, rel=1e-5)
    with ema.swapped():
        assert parameter.tolist() == pytest.approx([expected] * 3, rel=1e-5)
    assert parameter.tolist() == [199.0] * 3
