"""sd_unet's DiT against diffusers' DiTTransformer2DModel with copied random weights."""

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
OF_CLASSES = replace(CONFIG, cross_attention_dim=None, num_class_embeds=NUM_CLASSES + 1)
NO_CLASS = NUM_CLASSES


def randomised(config: DiTConfig) -> DiT:
    torch.manual_seed(0)
    dit = DiT(config).eval()
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.normal_(std=0.5 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2)
    return dit


def peer_of(dit: DiT, table: Tensor, hidden_states: Tensor | None = None) -> DiTTransformer2DModel:
    """Build diffusers' network with the weights of ours, and the rows of `table` for its classes.

    It has no cross-attention, so where ours has, blocks that do are put in, and are given the
    states of the text.
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
    peer.pos_embed.proj.load_state_dict(dit.conv_in.state_dict())
    peer.proj_out_1.load_state_dict(dit.modulation_out.state_dict())
    peer.proj_out_2.load_state_dict(dit.proj_out.state_dict())
    for index, ours in enumerate(dit.transformer_blocks):
        if config.conditioning == "cross" and hidden_states is not None:
            peer.transformer_blocks[index] = with_cross_attention(config, hidden_states)
        copy_block(dit, ours, peer.transformer_blocks[index], table)
    return peer


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


def copy_block(dit: DiT, ours: nn.Module, theirs: nn.Module, rows: Tensor) -> None:
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
        table[: len(rows)] = rows
    missing = theirs.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert all(name.startswith("norm1.emb") for name in missing.missing_keys)
    assert set(own) == {name.replace("norm1.linear", "modulation") for name in state}, (
        "every weight of ours was copied"
    )


def of_classes() -> tuple[DiT, DiTTransformer2DModel]:
    """Return a network of ours that is told classes and hears no text, and its peer."""
    dit = randomised(OF_CLASSES)
    assert dit.class_embedding is not None
    return dit, peer_of(dit, dit.class_embedding.weight)


def one_picture(times: int) -> tuple[Tensor, Tensor]:
    latents = torch.randn(
        1, OF_CLASSES.in_channels, 8, 8, generator=torch.Generator().manual_seed(1)
    )
    return latents.expand(times, -1, -1, -1), torch.full((times,), 700)


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_the_network_equals_diffusers(name: str) -> None:
    dit = randomised(CONFIGS[name])
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, dit.config.in_channels, 8, 8, generator=generator)
    states = torch.randn(2, 5, 24, generator=generator)
    timesteps = torch.tensor([3, 700])
    # Its classes stand for our text.
    table = torch.zeros(2, dit.config.channels)
    if dit.text_embedding is not None:
        table = dit.text_embedding(states.mean(1))
    peer = peer_of(dit, table, states)
    theirs = peer(latents, timesteps, class_labels=torch.arange(2)).sample
    ours = dit(latents, timesteps, states)
    assert (ours - theirs).abs().max() <= 1e-4
    assert theirs.abs().mean() > 0.1


@torch.no_grad()
def test_a_network_of_classes_equals_diffusers_for_each_class_and_for_none() -> None:
    dit, peer = of_classes()
    labels = torch.arange(NUM_CLASSES + 1)
    # One picture for all, so that they differ by their class alone.
    latents, timesteps = one_picture(len(labels))
    theirs = peer(latents, timesteps, class_labels=labels).sample
    ours = dit(latents, timesteps, class_labels=labels)
    assert (ours - theirs).abs().max() <= 1e-4
    assert theirs.abs().mean() > 0.1
    apart = (theirs[:, None] - theirs).abs().flatten(2).amax(2)
    assert apart[~torch.eye(len(labels), dtype=torch.bool)].min() > 1e-2


@torch.no_grad()
def test_a_label_that_diffusers_drops_is_our_row_for_no_class() -> None:
    dit, peer = of_classes()
    for block in peer.transformer_blocks:
        block.norm1.emb.class_embedder.dropout_prob = 1.0
    peer.train()  # its only dropout is that of labels
    latents, timesteps = one_picture(2)
    theirs = peer(latents, timesteps, class_labels=torch.tensor([1, 3])).sample
    ours = dit(latents, timesteps, class_labels=torch.full((2,), NO_CLASS))
    assert (ours - theirs).abs().max() <= 1e-4
    told = dit(latents, timesteps, class_labels=torch.tensor([1, 3]))
    assert (told - theirs).abs().max() > 1e-2
