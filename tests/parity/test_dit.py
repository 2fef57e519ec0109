"""sd_unet's DiT against diffusers' DiTTransformer2DModel with copied random weights."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

from sd_unet import DiT, DiTConfig

NUM_CLASSES = 5
CONFIG = DiTConfig(
    sample_size=8, channels=32, num_layers=3, num_heads=2, cross_attention_dim=24, patch_size=2
)
CONFIGS = {
    "adaln": replace(CONFIG, conditioning="adaln"),
    "cross": CONFIG,
    "cross-patches-of-one": replace(CONFIG, patch_size=1, in_channels=8, out_channels=8),
}


def randomised(config: DiTConfig) -> DiT:
    torch.manual_seed(0)
    dit = DiT(config).eval()
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.normal_(std=0.5 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2)
    return dit


def peer_of(dit: DiT, hidden_states: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Build diffusers' network with the weights of ours.

    Its class labels stand for our text's states; it has no cross-attention, so where ours has,
    blocks that do are put in, and are given the states.
    """
    config = dit.config
    peer = DiTTransformer2DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.channels // config.num_heads,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        num_layers=config.num_layers,
        patch_size=config.patch_size,
        sample_size=config.sample_size,
        num_embeds_ada_norm=NUM_CLASSES,
        attention_bias=False,
        activation_fn="geglu",
        norm_eps=1e-6,
    ).eval()
    told = torch.zeros(len(hidden_states), config.channels)
    if dit.text_embedding is not None:
        told = dit.text_embedding(hidden_states.mean(1))
    peer.pos_embed.proj.load_state_dict(dit.conv_in.state_dict())
    peer.proj_out_1.load_state_dict(dit.modulation_out.state_dict())
    peer.proj_out_2.load_state_dict(dit.proj_out.state_dict())
    for index, ours in enumerate(dit.transformer_blocks):
        if config.conditioning == "cross":
            peer.transformer_blocks[index] = with_cross_attention(config, hidden_states)
        copy_block(dit, ours, peer.transformer_blocks[index], told)

    def predict(latents: Tensor, timesteps: Tensor) -> Tensor:
        out: Tensor = peer(latents, timesteps, class_labels=torch.arange(len(latents))).sample
        return out

    return predict


def with_cross_attention(config: DiTConfig, hidden_states: Tensor) -> nn.Module:
    block = BasicTransformerBlock(
        config.channels,
        config.num_heads,
        config.channels // config.num_heads,
        cross_attention_dim=config.cross_attention_dim,
        num_embeds_ada_norm=NUM_CLASSES,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        activation_fn="geglu",
    ).eval()

    def tell(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, kwargs | {"encoder_hidden_states": hidden_states}

    block.register_forward_pre_hook(tell, with_kwargs=True)
    return block


def copy_block(dit: DiT, ours: nn.Module, theirs: nn.Module, told: Tensor) -> None:
    own = ours.state_dict()
    state = {
        name: own[name.replace("norm1.linear", "modulation")]
        for name in theirs.state_dict()
        if not name.startswith("norm1.emb")
    }
    embedding = theirs.norm1.emb
    embedding.time_proj.downscale_freq_shift = 0  # diffusers' alone; ours is the paper's code's
    embedding.timestep_embedder.load_state_dict(dit.time_embedding.state_dict())
    with torch.no_grad():
        table = embedding.class_embedder.embedding_table.weight
        table.zero_()
        table[: len(told)] = told
    missing = theirs.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert all(name.startswith("norm1.emb") for name in missing.missing_keys)
    assert set(own) == {name.replace("norm1.linear", "modulation") for name in state}, (
        "every weight of ours was copied"
    )


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_the_network_equals_diffusers(name: str) -> None:
    dit = randomised(CONFIGS[name])
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, dit.config.in_channels, 8, 8, generator=generator)
    states = torch.randn(2, 5, 24, generator=generator)
    timesteps = torch.tensor([3, 700])
    theirs = peer_of(dit, states)(latents, timesteps)
    ours = dit(latents, timesteps, states)
    assert (ours - theirs).abs().max() <= 1e-4
    assert theirs.abs().mean() > 0.1
