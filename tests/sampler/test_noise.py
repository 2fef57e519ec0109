"""The noise of a picture depends on its seed and on nothing else."""

import pytest
import torch

from sd_sampler import BlendedNoise, NoiseSource, SamplerError, slerp

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


def test_blended_noise_goes_from_one_seeds_to_anothers_and_stays_normal() -> None:
    shape = (4, 32, 32)
    own, other = NoiseSource([1, 2], shape), NoiseSource([8, 9], shape)
    for share, wanted in ((0.0, own.initial()), (1.0, other.initial())):
        blended = BlendedNoise(NoiseSource([1, 2], shape), [8, 9], share)
        torch.testing.assert_close(blended.initial(), wanted)
    half = BlendedNoise(own, [8, 9], 0.5)
    first = half.initial()
    assert float(first.std()) == pytest.approx(1, abs=0.05)  # of a straight line it would be 0.7
    generator = torch.Generator("cpu").manual_seed(1)
    torch.randn((1, *shape), generator=generator)
    assert torch.equal(half()[:1], torch.randn((1, *shape), generator=generator))


def test_noises_that_point_the_same_way_blend_in_a_straight_line() -> None:
    noise = torch.randn((2, 3, 4), generator=torch.manual_seed(0))
    torch.testing.assert_close(slerp(noise, noise * 2, 0.5), noise * 1.5)


def test_a_blend_needs_a_seed_for_each_picture() -> None:
    with pytest.raises(SamplerError, match="1 seeds to blend with for 2: give as many"):
        BlendedNoise(NoiseSource([1, 2], SHAPE), [3], 0.5)
