"""sd_unet against diffusers' UNet2DConditionModel: copied random weights, 1e-4 in float32."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn

from sd_unet import UNet, UNetConfig, ldm_key_map, scenes, sd15, sinusoidal_embedding

TOLERANCE = 1e-4

# SD 1.x's structure: four levels, the last without attention, two layers, eight heads.
SMALL = UNetConfig(
    sample_size=16,
    block_out_channels=(32, 64, 96, 96),
    cross_attention_dim=48,
    norm_num_groups=16,
)
# SD 2.x's: linear projections and heads of one width at every level.
SMALL_SD2 = UNetConfig(
    sample_size=16,
    block_out_channels=(32, 64, 128),
    attention_levels=(True, True, False),
    layers_per_block=1,
    cross_attention_dim=48,
    num_heads=(1, 2, 4),
    transformer_layers=(1, 2, 2),
    use_linear_projection=True,
    upcast_attention=True,
)
CONFIGS = {"small": SMALL, "small-sd2": SMALL_SD2, "scenes": scenes()}


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request: pytest.FixtureRequest) -> tuple[UNet, UNet2DConditionModel]:
    """Return our network and diffusers', with one set of random weights."""
    config = CONFIGS[request.param]
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
    assert difference(ours(*args), peer(*args).sample) < TOLERANCE


@torch.no_grad()
def test_timesteps_between_whole_ones(pair: Any) -> None:
    ours, peer = pair
    latents, _, hidden_states = inputs(ours.config)
    args = (latents, torch.tensor([0.25, 499.75]), hidden_states)
    assert difference(ours(*args), peer(*args).sample) < TOLERANCE


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


MODULES = [
    "time_embedding",
    "down_blocks.0.resnets.0",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2",
    "down_blocks.1.attentions.0.transformer_blocks.0.ff",
    "down_blocks.1.attentions.0",
    "down_blocks.0.downsamplers.0",
    "down_blocks.0",
    "mid_block",
    "up_blocks.0.resnets.0",
    "up_blocks.0.upsamplers.0",
    "up_blocks.0",
    "up_blocks.1.attentions.0",
    "up_blocks.2",
    "conv_norm_out",
]


@pytest.fixture(scope="module")
def answers(pair: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    ours, peer = pair
    recorders = Recorder(ours), Recorder(peer)
    args = inputs(ours.config)
    with torch.no_grad():
        ours(*args)
        peer(*args)
    return recorders[0].outputs, recorders[1].outputs


@pytest.mark.parametrize("module", MODULES)
def test_each_module(answers: Any, module: str) -> None:
    ours, peer = answers
    assert difference(ours[module], peer[module]) < TOLERANCE


@torch.no_grad()
def test_diffusers_opens_our_folder(tmp_path: Path) -> None:
    from sd_checkpoint import save_json, save_safetensors

    torch.manual_seed(0)
    ours = UNet(SMALL).eval()
    nn.init.normal_(ours.conv_out.weight, std=0.1)
    save_json(tmp_path / "config.json", SMALL.to_diffusers())
    save_safetensors(tmp_path / "diffusion_pytorch_model.safetensors", ours.state_dict())
    peer = UNet2DConditionModel.from_pretrained(tmp_path, low_cpu_mem_usage=False).eval()
    args = inputs(SMALL)
    assert difference(ours(*args), peer(*args).sample) < TOLERANCE


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


@pytest.mark.parametrize("config", [sd15(), scenes()], ids=["sd15", "scenes"])
def test_key_sets_and_shapes_are_equal_at_full_size(config: UNetConfig) -> None:
    with torch.device("meta"):
        ours, peer = UNet(config), UNet2DConditionModel.from_config(config.to_diffusers())
    assert shapes(ours) == shapes(peer)


@pytest.mark.parametrize("config", [sd15(), scenes()], ids=["sd15", "scenes"])
def test_ldm_names_are_those_that_diffusers_converts(config: UNetConfig) -> None:
    with torch.device("meta"):
        ours = UNet(config).state_dict()
    ldm = ldm_key_map(config).inverse().apply(ours)
    checkpoint = {f"model.diffusion_model.{key}": tensor for key, tensor in ldm.items()}
    converted = convert_ldm_unet_checkpoint(checkpoint, config.to_diffusers())
    assert converted.keys() == ours.keys()
    assert all(converted[key] is ours[key] for key in ours)
