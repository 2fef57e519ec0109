"""`sd_vae.TinyDecoder` against diffusers' AutoencoderTiny, same random weights: 1e-5, float32."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny as Peer
from torch import Tensor

from sd_ops import use_fast_paths
from sd_pipeline import open_tiny_vae, to_images
from sd_vae import TinyDecoder, TinyDecoderConfig, sd15

TOLERANCE = 1e-5
CPU = torch.device("cpu")


def noise(*shape: int) -> Tensor:
    # Wide, so that what bends latents back has something to bend.
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(1))


def near(ours: Tensor, peer: Tensor) -> bool:
    assert peer.std() > 1e-2, "a picture of nothing agrees with anything"
    return ours.shape == peer.shape and (ours - peer).abs().max().item() <= TOLERANCE


@pytest.mark.parametrize("channels", [4, 16])
@torch.no_grad()
def test_the_keys_and_the_pictures_are_diffusers_own(channels: int) -> None:
    torch.manual_seed(0)
    peer = Peer(latent_channels=channels).eval()
    ours = TinyDecoder(TinyDecoderConfig(latent_channels=channels))
    ours.load_state_dict(peer.decoder.state_dict(), strict=True)
    latents = noise(2, channels, 9, 7)
    assert near(ours(latents), peer.decode(latents).sample)
    use_fast_paths(ours)
    assert near(ours(latents), peer.decode(latents).sample)


@torch.no_grad()
def test_a_folder_that_diffusers_wrote_draws_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    peer = Peer().eval()
    peer.save_pretrained(tmp_path / "tiny")
    latents = noise(1, 4, 8, 8)
    tiny = open_tiny_vae(tmp_path / "tiny", sd15(), device=CPU, dtype=torch.float32)
    assert near(tiny.decoder(latents), peer.decode(latents).sample)
    (found,), (wanted,) = tiny.decode(latents), to_images(peer.decode(latents).sample)
    assert found.tobytes() == wanted.tobytes()
