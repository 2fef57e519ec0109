import math

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
