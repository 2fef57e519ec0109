"""sd_unet against diffusers' UNet2DConditionModel: copied random weights, 1e-4 in float32."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn

from sd_unet import (
    AddedConditions,
    UNet,
    UNetConfig,
    ldm_key_map,
    scenes,
    sd15,
    sd21,
    sdxl,
    sdxl_refiner,
    sinusoidal_embedding,
)
from tests.unet.families import POOLED_DIM, TINY
from tests.unet.published import PUBLISHED

TOLERANCE = 1e-4

CONFIGS = {**TINY, "scenes": scenes()}
FULL = {
    "sd15": sd15(),
    "sd15-inpainting": replace(sd15(), in_channels=9),
    "sd21": sd21(),
    "sdxl": sdxl(),
    "sdxl-refiner": sdxl_refiner(),
    "scenes": scenes(),
}


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request: pytest.FixtureRequest) -> tuple[UNet, UNet2DConditionModel]:
    """Return our network and diffusers', with one set of random weights."""
    return networks(CONFIGS[request.param])


def networks(config: UNetConfig) -> tuple[UNet, UNet2DConditionModel]:
    torch.manual_seed(0)
    ours = UNet(config).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
            parameter.normal_(std=fan_in**-0.5)
    peer = UNet2DConditionModel.from_config(config.to_diffusers()).eval()
    peer.load_state_dict(ours.state_dict())
    return ours, peer


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    assert b.std() > 0.01, "a test that compares zeros proves nothing"
    return float((a - b).abs().max())


def conditions(config: UNetConfig) -> AddedConditions | None:
    if config.projection_input_dim is None:
        return None
    generator = torch.Generator().manual_seed(2)
    sizes = torch.tensor(
        [[1024.0, 768.0, 0.0, 17.0, 1024.0, 1000.0], [512.0, 333.0, 4.0, 0.0, 6.0, 2.5]]
    )
    pooled = torch.randn(2, POOLED_DIM, generator=generator)
    return AddedConditions(pooled, sizes[:, : config.num_sizes(POOLED_DIM)])


def predict(ours: UNet, *args: Tensor) -> Tensor:
    return ours(*args, conditions(ours.config))


def predict_peer(peer: UNet2DConditionModel, *args: Tensor) -> Tensor:
    added = conditions(UNetConfig.from_diffusers(dict(peer.config)))
    if added is None:
        return peer(*args).sample
    named = {"text_embeds": added.pooled, "time_ids": added.sizes}
    return peer(*args, added_cond_kwargs=named).sample


def inputs(config: UNetConfig, height: int = 16, width: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, config.in_channels, height, width, generator=generator)
    hidden_states = torch.randn(2, 7, config.cross_attention_dim, generator=generator)
    return latents, torch.tensor([0, 981]), hidden_states


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 24), (15, 10), (9, 7)])
def test_whole_network(pair: Any, height: int, width: int) -> None:
    ours, peer = pair
    args = inputs(ours.config, height, width)
    assert difference(predict(ours, *args), predict_peer(peer, *args)) < TOLERANCE


@torch.no_grad()
def test_timesteps_between_whole_ones(pair: Any) -> None:
    ours, peer = pair
    latents, _, hidden_states = inputs(ours.config)
    args = (latents, torch.tensor([0.25, 499.75]), hidden_states)
    assert difference(predict(ours, *args), predict_peer(peer, *args)) < TOLERANCE


def test_sinusoids_equal_the_peers() -> None:
    timesteps = torch.arange(0, 1000, 7)
    peer = Timesteps(320, flip_sin_to_cos=True, downscale_freq_shift=0)
    assert difference(sinusoidal_embedding(timesteps, 320), peer(timesteps)) < 1e-6


class Recorder:
    """Keeps what every module of a network was given and what it answered."""

    def __init__(self, network: nn.Module) -> None:
        self.outputs: dict[str, Tensor] = {}
        for name, module in network.named_modules():
            module.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            while isinstance(output, tuple):
                output = output[0]
            self.outputs[name] = getattr(output, "sample", output)

        return hook


@torch.no_grad()
def test_every_module(pair: Any) -> None:
    ours, peer = pair
    recorders = Recorder(ours), Recorder(peer)
    args = inputs(ours.config)
    predict(ours, *args)
    predict_peer(peer, *args)
    mine, theirs = (recorder.outputs for recorder in recorders)
    shared = [name for name in mine if name in theirs]
    assert {name.rpartition(".")[0] for name, _ in ours.named_parameters()} <= set(shared)
    assert [name for name in shared if difference(mine[name], theirs[name]) >= TOLERANCE] == []


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeds_sizes_as_the_peer_does(dtype: torch.dtype) -> None:
    """Sinusoids are float32 until the linears in both, so even large sizes agree."""
    ours, peer = (network.to(dtype) for network in networks(TINY["sdxl"]))
    recorders = Recorder(ours), Recorder(peer)
    latents, timesteps, hidden_states = inputs(ours.config)
    args = latents.to(dtype), timesteps, hidden_states.to(dtype)
    predict(ours, *args)
    predict_peer(peer, *args)
    mine, theirs = (recorder.outputs["add_embedding"] for recorder in recorders)
    assert torch.equal(mine, theirs)


@torch.no_grad()
@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_diffusers_opens_our_folder(name: str, tmp_path: Path) -> None:
    from sd_checkpoint import save_json, save_safetensors

    config = TINY[name]
    torch.manual_seed(0)
    ours = UNet(config).eval()
    nn.init.normal_(ours.conv_out.weight, std=0.1)
    save_json(tmp_path / "config.json", config.to_diffusers())
    save_safetensors(tmp_path / "diffusion_pytorch_model.safetensors", ours.state_dict())
    peer = UNet2DConditionModel.from_pretrained(tmp_path, low_cpu_mem_usage=False).eval()
    args = inputs(config)
    assert difference(predict(ours, *args), predict_peer(peer, *args)) < TOLERANCE


@pytest.mark.parametrize("name", CONFIGS)
def test_we_read_the_config_that_diffusers_writes(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    with torch.device("meta"):
        peer = UNet2DConditionModel.from_config(config.to_diffusers())
    peer.save_config(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert UNetConfig.from_diffusers(written) == config
    assert written.keys() - config.to_diffusers().keys() <= {"_diffusers_version"}


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


@pytest.mark.parametrize("config", FULL.values(), ids=FULL)
def test_key_sets_and_shapes_are_equal_at_full_size(config: UNetConfig) -> None:
    with torch.device("meta"):
        ours, peer = UNet(config), UNet2DConditionModel.from_config(config.to_diffusers())
    assert shapes(ours) == shapes(peer)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_config_makes_the_peers_network(name: str) -> None:
    with torch.device("meta"):
        ours = UNet(UNetConfig.from_diffusers(PUBLISHED[name]))
        peer = UNet2DConditionModel.from_config(PUBLISHED[name])
    assert shapes(ours) == shapes(peer)


@pytest.mark.parametrize("config", FULL.values(), ids=FULL)
def test_ldm_names_are_those_that_diffusers_converts(config: UNetConfig) -> None:
    with torch.device("meta"):
        ours = UNet(config).state_dict()
    ldm = ldm_key_map(config).inverse().apply(ours)
    checkpoint = {f"model.diffusion_model.{key}": tensor for key, tensor in ldm.items()}
    converted = convert_ldm_unet_checkpoint(checkpoint, config.to_diffusers())
    assert converted.keys() == ours.keys()
    assert all(converted[key] is ours[key] for key in ours)


@torch.no_grad()
def test_what_diffusers_converts_from_our_ldm_file_predicts_the_same(pair: Any) -> None:
    ours, _ = pair
    ldm = ldm_key_map(ours.config).inverse().apply(ours.state_dict())
    file = {f"model.diffusion_model.{key}": tensor.clone() for key, tensor in ldm.items()}
    settings = ours.config.to_diffusers()
    peer = UNet2DConditionModel.from_config(settings).eval()
    peer.load_state_dict(convert_ldm_unet_checkpoint(file, settings))
    args = inputs(ours.config)
    assert difference(predict(ours, *args), predict_peer(peer, *args)) < TOLERANCE
