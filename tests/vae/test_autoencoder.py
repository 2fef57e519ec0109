import pytest
import torch

from sd_ops import AttentionUnavailable
from sd_vae import AutoencoderKL, VAEConfig, VAEError, VAELoss, VAELossConfig, scenes, sd15


def small() -> VAEConfig:
    return VAEConfig(
        latent_channels=3, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4
    )


@pytest.fixture
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(small()).eval()


def images(size: int = 16) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_sd15_preset_has_83_65_million_parameters() -> None:
    with torch.device("meta"):
        vae = AutoencoderKL(sd15())
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863


@pytest.mark.parametrize("config", [sd15(), scenes()])
def test_both_presets_make_latents_eight_times_smaller(config: VAEConfig) -> None:
    assert config.downsampling == 8
    with torch.device("meta"):
        vae = AutoencoderKL(config)
        latents = vae.encode(torch.empty(1, 3, 128, 64)).mode()
        assert latents.shape == (1, config.latent_channels, 16, 8)
        assert vae.decode(latents).shape == (1, 3, 128, 64)


def test_a_pass_gives_pictures_and_the_posterior(vae: AutoencoderKL) -> None:
    recon, posterior = vae(images())
    assert recon.shape == (2, 3, 16, 16)
    assert posterior.mean.shape == (2, 3, 8, 8)


def test_the_same_generator_gives_the_same_pictures(vae: AutoencoderKL) -> None:
    first, second = (vae(images(), torch.Generator().manual_seed(3))[0] for _ in range(2))
    assert torch.equal(first, second)


def test_unscale_undoes_scale(vae: AutoencoderKL) -> None:
    z = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(vae.scale(z), z * 0.18215)
    torch.testing.assert_close(vae.unscale(vae.scale(z)), z)


def test_a_side_that_is_no_multiple_is_refused_with_the_multiple(vae: AutoencoderKL) -> None:
    with pytest.raises(VAEError, match="17x16 cannot be encoded; both sides must be multiples of"):
        vae.encode(torch.zeros(1, 3, 16, 17))


def test_a_half_precision_decoder_takes_float32_latents(vae: AutoencoderKL) -> None:
    assert vae.bfloat16().decode(torch.randn(1, 3, 4, 4)).dtype == torch.bfloat16


def test_the_chunked_backend_draws_the_same_picture(vae: AutoencoderKL) -> None:
    z = torch.randn(1, 3, 8, 8)
    before = vae.decode(z)
    vae.set_attention_backend("chunked")
    torch.testing.assert_close(vae.decode(z), before, atol=1e-5, rtol=0)


def test_a_backend_that_cannot_run_is_refused_when_it_is_set(vae: AutoencoderKL) -> None:
    with pytest.raises(AttentionUnavailable, match="xformers"):
        vae.set_attention_backend("xformers")


def test_channels_last_gives_the_same_picture_in_channels_last(vae: AutoencoderKL) -> None:
    z = torch.randn(2, 3, 8, 8)
    before = vae.decode(z)
    vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    after = vae.decode(z.to(memory_format=torch.channels_last))
    assert after.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


def test_without_mid_block_attention_there_are_no_attention_weights() -> None:
    vae = AutoencoderKL(
        VAEConfig(block_out_channels=(8, 8), norm_num_groups=4, mid_block_add_attention=False)
    )
    assert not [key for key in vae.state_dict() if "attentions" in key]
    assert vae(images())[0].shape == (2, 3, 16, 16)


def test_every_weight_learns() -> None:
    torch.manual_seed(0)
    vae, loss = AutoencoderKL(small()), VAELoss(VAELossConfig(gradient_weight=1.0))
    recon, posterior = vae(images())
    loss(images(), recon, posterior).total.backward()
    still = [n for n, p in vae.named_parameters() if p.grad is None or not p.grad.any()]
    # A key's bias adds the same to every score of a query, which the softmax takes out again.
    assert [name for name in still if not name.endswith("to_k.bias")] == []


def test_it_learns_a_picture_in_bfloat16_autocast() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(small())
    vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss, target = VAELoss(), torch.nn.functional.avg_pool2d(images(), 4).repeat_interleave(4, -1)
    target = target.repeat_interleave(4, -2).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=3e-3)
    history = []
    for _ in range(60):
        with torch.autocast("cpu", torch.bfloat16):
            recon, posterior = vae(target)
        terms = loss(target, recon, posterior)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        history.append(terms.reconstruction.item())
    assert history[-1] < 0.5 * history[0]


def test_what_small_blocks_left_is_given_back_before_the_large_ones(
    vae: AutoencoderKL, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    monkeypatch.setattr("sd_vae.autoencoder.give_back_freed", lambda: given.append(1))
    latents = torch.zeros(2, 3, 32, 32)
    with torch.no_grad():
        vae.decode(latents)
        assert len(given) == 2
        vae.decode(latents[:1])  # a small picture: nothing of its would be missed
        assert len(given) == 2
        vae.to("meta").decode(latents.to("meta"))
    AutoencoderKL(small()).decode(latents)  # where it learns the next step wants it all again
    assert len(given) == 2
