"""`sd_vae.VQModel` against diffusers' with the same random weights: 1e-4 max abs, float32."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import VQModel as Peer
from torch import Tensor

from sd_pipeline import load_vae
from sd_pipeline.folder import save_vae
from sd_vae import VQConfig, VQModel

TOLERANCE = 1e-4
CONFIG = VQConfig(
    block_out_channels=(16, 32), norm_num_groups=8, latent_channels=3, num_embeddings=32
)


@cache
def pair() -> tuple[VQModel, Any]:
    torch.manual_seed(0)
    ours, peer = VQModel(CONFIG).eval(), Peer.from_config(CONFIG.to_diffusers()).eval()
    for parameter in ours.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(0.2 * torch.randn(parameter.shape))
    torch.nn.init.normal_(ours.quantize.embedding.weight)
    peer.load_state_dict(ours.state_dict(), strict=True)
    return ours, peer


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def near(ours: Tensor, peer: Tensor) -> bool:
    return ours.shape == peer.shape and (ours - peer).abs().max().item() <= TOLERANCE


def test_the_config_and_the_keys_are_diffusers_own() -> None:
    ours, peer = pair()
    theirs = {key: value for key, value in peer.config.items() if key != "_use_default_values"}
    mine = CONFIG.to_diffusers()
    assert {key: list(v) if isinstance(v, tuple) else v for key, v in theirs.items()} == mine
    shapes = {key: tensor.shape for key, tensor in ours.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in peer.state_dict().items()}


def test_the_codebook_gives_the_same_codes_and_losses() -> None:
    ours, peer = pair()
    z = noise(2, 3, 8, 6)
    peer.quantize.legacy = False
    codes, loss, (_, _, indices) = peer.quantize(z)
    found = ours.quantize(z)
    assert torch.equal(found.indices.flatten(), indices)
    assert len(indices.unique()) > 8
    assert near(found.codes, codes)
    assert near(found.codebook + 0.25 * found.commitment, loss)


def test_encoding_decoding_and_both_are_the_same() -> None:
    ours, peer = pair()
    images = noise(1, 3, 24, 16)
    with torch.no_grad():
        z = peer.encode(images).latents
        assert near(ours.encode(images).mode(), z)
        assert near(ours.decode(z), peer.decode(z).sample)
        assert near(ours.decode_codes(z), peer.decode(z, force_not_quantize=True).sample)
        assert near(ours(images)[0], peer(images).sample)


def test_each_opens_the_folder_of_the_other(tmp_path: Path) -> None:
    ours, peer = pair()
    z = noise(1, 3, 8, 8)
    save_vae(tmp_path / "ours", ours, dtype=torch.float32)
    peer.save_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        wanted = ours.decode(z)
        theirs = load_vae(tmp_path / "theirs")
        assert isinstance(theirs, VQModel)
        assert torch.equal(theirs.decode(z), wanted)
        assert near(Peer.from_pretrained(tmp_path / "ours").decode(z).sample, wanted)
