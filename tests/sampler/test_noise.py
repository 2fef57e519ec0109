"""The noise of a picture depends on its seed and on nothing else."""

import pytest
import torch

from sd_sampler import NoiseSource, SamplerError

SHAPE = (4, 8, 8)


def test_noise_is_what_torch_draws_from_the_seeds_own_generator() -> None:
    source = NoiseSource([7], SHAPE)
    generator = torch.Generator("cpu").manual_seed(7)
    for drawn in (source.initial(), source(), source()):
        assert torch.equal(drawn, torch.randn((1, *SHAPE), generator=generator))


def test_a_picture_in_a_batch_gets_the_noise_it_gets_alone() -> None:
    seeds = [5, 6, 7, 2**64 - 1]
    batch = NoiseSource(seeds, SHAPE)
    alone = [NoiseSource([seed], SHAPE) for seed in seeds]
    assert torch.equal(batch.initial(), torch.cat([source.initial() for source in alone]))
    assert torch.equal(batch(), torch.cat([source() for source in alone]))


def test_the_order_of_a_batch_does_not_matter() -> None:
    forth, back = NoiseSource([1, 2], SHAPE), NoiseSource([2, 1], SHAPE)
    for _ in range(3):
        assert torch.equal(forth(), back().flip(0))


def test_noise_ignores_and_leaves_alone_the_global_generator() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = NoiseSource([3], SHAPE).initial()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(NoiseSource([3], SHAPE).initial(), first)


def test_initial_noise_starts_the_picture_afresh() -> None:
    source = NoiseSource([3], SHAPE)
    first, second = source.initial(), source()
    assert torch.equal(source.initial(), first)
    assert torch.equal(source(), second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_dtype_holds_the_same_float32_draws(dtype: torch.dtype) -> None:
    drawn = NoiseSource([3], SHAPE, dtype=dtype).initial()
    assert torch.equal(drawn, NoiseSource([3], SHAPE).initial().to(dtype))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_another_device_holds_the_same_draws() -> None:
    drawn = NoiseSource([3], SHAPE, device="cuda").initial()
    assert drawn.device.type == "cuda"
    assert torch.equal(drawn.cpu(), NoiseSource([3], SHAPE).initial())


@pytest.mark.parametrize("seeds", [[-1], [2**64]])
def test_a_seed_out_of_range_is_refused(seeds: list[int]) -> None:
    with pytest.raises(SamplerError, match=f"seed {seeds[0]} is out of range"):
        NoiseSource(seeds, SHAPE)


def test_a_source_without_seeds_is_refused() -> None:
    with pytest.raises(SamplerError, match="no seeds"):
        NoiseSource([], SHAPE)
