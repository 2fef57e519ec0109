import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sd_vae import (
    CodebookUsage,
    MemoryBudget,
    PointMass,
    VAEConfig,
    VAEError,
    VAELoss,
    VAELossConfig,
    VectorQuantizer,
    VQConfig,
    VQModel,
    build_autoencoder,
    config_from_diffusers,
    decode_in_bands,
    encode_in_bands,
    scenes,
    with_codebook,
)

TINY = VQConfig(
    block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, num_embeddings=16
)  # fmt: skip


def model() -> VQModel:
    torch.manual_seed(0)
    vae = build_autoencoder(TINY)
    assert isinstance(vae, VQModel)
    # The first codes are so near each other that one would be nearest to everything.
    torch.nn.init.normal_(vae.quantize.embedding.weight)
    return vae


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def quantizer() -> VectorQuantizer:
    book = VectorQuantizer(3, 2)
    with torch.no_grad():
        book.embedding.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0], [-1.0, 1.0]]))
    return book


def test_every_vector_becomes_the_nearest_code() -> None:
    z = torch.tensor([[0.6, 0.8], [-0.9, 1.2]]).T[None, :, None]  # two vectors side by side
    found = quantizer()(z)
    assert found.indices.tolist() == [[[1, 2]]]
    torch.testing.assert_close(found.codes[0, :, 0].T, torch.tensor([[1.0, 1.0], [-1.0, 1.0]]))
    error = torch.tensor([0.4**2 + 0.2**2, 0.1**2 + 0.2**2]).sum() / 4
    torch.testing.assert_close((found.codebook, found.commitment), (error, error))


def test_gradients_go_straight_through_and_each_term_moves_its_side() -> None:
    book, z = quantizer(), noise(1, 2, 4, 4).requires_grad_(True)
    found = book(z)
    upstream = noise(1, 2, 4, 4)
    (straight,) = torch.autograd.grad((found.codes * upstream).sum(), z)
    torch.testing.assert_close(straight, upstream)
    weight = book.embedding.weight
    assert torch.autograd.grad(found.codebook, z, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(found.commitment, weight, allow_unused=True) == (None,)
    (pull,) = torch.autograd.grad(found.codebook, weight)
    assert pull.abs().sum() > 0


def test_a_large_latent_is_quantised_in_parts_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    book, z = VectorQuantizer(7, 4), noise(2, 4, 5, 3)
    torch.nn.init.normal_(book.embedding.weight)
    whole = book(z)
    monkeypatch.setattr("sd_vae.quantizer._MOST_DISTANCES", 14)
    assert torch.equal(whole.indices, book(z).indices)


def test_usage_tells_how_many_codes_do_the_work() -> None:
    usage = CodebookUsage(8)
    usage.add(torch.tensor([[0, 1], [2, 3]]))
    usage.add(torch.tensor([0, 1, 2, 3]))
    assert (usage.share, usage.perplexity) == (0.5, pytest.approx(4.0))
    usage.add(torch.zeros(992, dtype=torch.long))
    assert 1.0 < usage.perplexity < 1.1


def test_a_point_has_no_width_no_divergence_and_itself_as_samples() -> None:
    point = PointMass.at(noise(2, 4, 3, 3).half())
    assert point.mean.dtype == torch.float32
    assert torch.equal(point.sample(), point.mean)
    assert point.std.abs().max() == 0
    assert point.kl().tolist() == [0.0, 0.0]


def test_it_is_used_like_the_autoencoder_with_a_gaussian() -> None:
    vae, images = model(), noise(2, 3, 8, 12)
    recon, posterior = vae(images)
    assert recon.shape == images.shape
    assert posterior.mean.shape == (2, 4, 4, 6)
    assert torch.equal(recon, vae.decode(posterior.mode()))
    indices = vae.encode_to_indices(images)
    codes = vae.quantize.embedding(indices).permute(0, 3, 1, 2)
    torch.testing.assert_close(vae.decode_codes(codes), recon, rtol=1e-4, atol=1e-5)
    with pytest.raises(VAEError, match="must be multiples of 2"):
        vae.encode(noise(1, 3, 9, 8))


def test_bands_see_the_codes_too() -> None:
    vae, images = model(), noise(1, 3, 64, 16)
    budget = MemoryBudget(memory=2**16, host_memory=2**24)
    z = vae.encode(images).mode()
    in_bands = encode_in_bands(vae, images, budget=budget)
    torch.testing.assert_close(in_bands.mode(), z, rtol=1e-3, atol=1e-4)
    assert in_bands.kl().tolist() == [0.0]
    pictures = decode_in_bands(vae, z, budget=budget)
    torch.testing.assert_close(pictures, vae.decode(z), rtol=1e-3, atol=1e-4)


def test_the_loss_adds_the_codebooks_and_the_commitment() -> None:
    vae, images = model(), noise(2, 3, 8, 8).clamp(-1, 1)
    posterior = vae.encode(images)
    quantized = vae.quantize(posterior.mode())
    recon = vae.decode_codes(quantized.codes)
    config = VAELossConfig(codebook_weight=0.5, commitment_weight=3.0, kl_weight=1.0)
    terms = VAELoss(config)(images, recon, posterior, quantized=quantized)
    expected = quantized.codebook + 3.0 * quantized.commitment
    torch.testing.assert_close(terms.codebook, expected)
    torch.testing.assert_close(terms.total, terms.reconstruction + 0.5 * expected)
    terms.total.backward()
    assert all(p.grad is not None for p in vae.parameters())


def test_a_config_survives_the_way_through_a_config_json() -> None:
    config = with_codebook(scenes(), num_embeddings=512)
    assert config_from_diffusers(json.loads(json.dumps(config.to_diffusers()))) == config
    plain = config_from_diffusers(scenes().to_diffusers())
    assert plain == scenes()
    assert type(plain) is VAEConfig


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vq_embed_dim", 8),
        ("norm_type", "spatial"),
        ("lookup_from_codebook", True),
        ("act_fn", "relu"),
        ("_class_name", "AutoencoderKL"),
    ],
)
def test_what_is_not_built_here_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(VAEError, match="not a VQModel" if name == "_class_name" else name):
        VQConfig.from_diffusers(TINY.to_diffusers() | {name: value})


def test_an_empty_codebook_is_refused() -> None:
    with pytest.raises(VAEError, match="num_embeddings 0 is too few"):
        with_codebook(scenes(), num_embeddings=0)


def test_the_first_codes_are_small() -> None:
    weight = VectorQuantizer(64, 4).embedding.weight.detach()
    assert 0 < weight.abs().max() <= 1 / 64
    assert math.isclose(float(weight.mean()), 0, abs_tol=1 / 64)
