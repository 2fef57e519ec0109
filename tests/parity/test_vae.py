"""`sd_vae` against diffusers' AutoencoderKL with the same random weights: 1e-4 max abs, float32."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL as Peer
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from torch import Tensor, nn

from sd_checkpoint import save_json, save_safetensors
from sd_vae import AutoencoderKL, VAEConfig, folder_key_map, ldm_key_map, scenes, sd15, sdxl
from tests.vae.published import PUBLISHED

TOLERANCE = 1e-4
CONFIGS = {"sd15": sd15(), "scenes": scenes()}

both = pytest.mark.parametrize("name", list(CONFIGS))


def randomise(module: nn.Module) -> None:
    """Move norms and biases off their starts of one and nought, which would hide a swap."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            noise = torch.randn(parameter.shape, generator=generator)
            nn.init.constant_(parameter, parameter.mean().item() > 0.5)
            parameter.data.add_(0.2 * noise)


@cache
def pair(name: str) -> tuple[AutoencoderKL, Any]:
    torch.manual_seed(0)
    config = CONFIGS[name]
    ours, peer = AutoencoderKL(config).eval(), Peer.from_config(config.to_diffusers()).eval()
    randomise(ours)
    peer.load_state_dict(ours.state_dict(), strict=True)
    return ours, peer


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def assert_near(ours: Tensor, peer: Tensor) -> None:
    assert ours.shape == peer.shape
    assert ours.std() > 1e-2, "a picture of nothing agrees with anything"
    assert (ours - peer).abs().max().item() <= TOLERANCE


@both
def test_the_keys_and_shapes_are_diffusers_own(name: str) -> None:
    ours, peer = pair(name)
    shapes = {key: tensor.shape for key, tensor in ours.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in peer.state_dict().items()}


@both
@torch.no_grad()
def test_the_encoder_agrees(name: str) -> None:
    ours, peer = pair(name)
    images = noise(2, 3, 64, 48).clamp(-1, 1)
    assert_near(ours.encoder(images), peer.encoder(images))


@both
@torch.no_grad()
def test_the_mid_block_attention_agrees(name: str) -> None:
    ours, peer = pair(name)
    x = noise(2, ours.config.block_out_channels[-1], 8, 6)
    layer, other = ours.encoder.mid_block.attentions[0], peer.encoder.mid_block.attentions[0]
    assert_near(layer(x), other(x))


@both
@torch.no_grad()
def test_the_decoder_agrees(name: str) -> None:
    ours, peer = pair(name)
    z = noise(2, ours.config.latent_channels, 8, 6)
    assert_near(ours.decoder(z), peer.decoder(z))


@both
@torch.no_grad()
def test_encoding_sampling_and_decoding_agree(name: str) -> None:
    ours, peer = pair(name)
    images = noise(1, 3, 64, 64).clamp(-1, 1)
    posterior, other = ours.encode(images), peer.encode(images).latent_dist
    assert_near(posterior.mean, other.mean)
    assert_near(posterior.std, other.std)
    torch.testing.assert_close(posterior.kl(), other.kl(), atol=0, rtol=1e-5)
    seeds = (torch.Generator().manual_seed(7) for _ in range(2))
    z = posterior.sample(generator=next(seeds))
    assert_near(z, other.sample(next(seeds)))
    assert_near(ours.decode(z), peer.decode(z).sample)


@both
def test_a_config_reads_and_writes_as_diffusers_does(name: str) -> None:
    ours, peer = pair(name)
    assert VAEConfig.from_diffusers(dict(peer.config)) == ours.config
    hidden = {"_class_name", "_diffusers_version"}
    written = ours.config.to_diffusers()
    assert written.keys() - hidden == {key for key in peer.config if not key.startswith("_")}


@both
def test_the_ldm_key_map_agrees_with_diffusers_own_conversion(name: str) -> None:
    ours, peer = pair(name)
    theirs = ldm_key_map(ours.config).inverse().apply(ours.state_dict())
    file = {f"first_stage_model.{key}": tensor for key, tensor in theirs.items()}
    converted = convert_ldm_vae_checkpoint(file, dict(peer.config))
    own = ours.state_dict()
    assert converted.keys() == own.keys()
    assert all(torch.equal(converted[key], tensor) for key, tensor in own.items())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_makes_diffusers_network(name: str) -> None:
    with torch.device("meta"):
        ours = AutoencoderKL(VAEConfig.from_diffusers(PUBLISHED[name]))
        peer = Peer.from_config(PUBLISHED[name])
    shapes = {key: tensor.shape for key, tensor in ours.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in peer.state_dict().items()}
    assert ours.config.scaling_factor == peer.config.scaling_factor


def test_the_sdxl_config_is_written_as_diffusers_does(tmp_path: Path) -> None:
    with torch.device("meta"):
        Peer.from_config(PUBLISHED["sdxl"]).save_config(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    hidden = {"_class_name", "_diffusers_version", "_name_or_path"}
    ours = sdxl().to_diffusers()
    assert {k: v for k, v in written.items() if k not in hidden} == {
        k: v for k, v in ours.items() if k not in hidden
    }


def test_an_old_folder_gives_what_diffusers_reads_from_it(tmp_path: Path) -> None:
    ours, _ = pair("scenes")
    old = {}
    for key, tensor in ours.state_dict().items():
        for new, spelling in (("to_q", "query"), ("to_k", "key"), ("to_v", "value")):
            key = key.replace(f"attentions.0.{new}", f"attentions.0.{spelling}")
        old[key.replace("to_out.0", "proj_attn")] = tensor
    assert old.keys() != ours.state_dict().keys()
    save_json(tmp_path / "config.json", ours.config.to_diffusers())
    save_safetensors(tmp_path / "diffusion_pytorch_model.safetensors", old)
    peer = Peer.from_pretrained(tmp_path, low_cpu_mem_usage=False).state_dict()
    mapped = folder_key_map().apply(old)
    assert mapped.keys() == peer.keys()
    assert all(torch.equal(mapped[key], peer[key]) for key in peer)
