"""Networks that are told classes, with a text and without one."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sd_unet import (
    DiT,
    DiTConfig,
    UNet,
    UNetConfig,
    UNetConfigError,
    UNetInputError,
    backbone_config,
    build_backbone,
    config_from_ldm,
    ldm_key_map,
    perturbed_attention,
    scenes,
    sd15,
)

TEXT = UNetConfig(
    sample_size=8,
    block_out_channels=(32, 64),
    attention_levels=(False, True),
    layers_per_block=1,
    cross_attention_dim=24,
    num_heads=4,
    num_class_embeds=5,
)
DIT = DiTConfig(
    sample_size=8, channels=32, num_layers=3, num_heads=2, cross_attention_dim=None,
    num_class_embeds=5,
)  # fmt: skip
CONFIGS = {
    "unet": TEXT,
    "unet-no-text": TEXT.without_text(),
    "dit": replace(DIT, cross_attention_dim=24),
    "dit-adaln": replace(DIT, cross_attention_dim=24, conditioning="adaln"),
    "dit-no-text": DIT,
}


def randomised(config: UNetConfig | DiTConfig) -> Any:
    torch.manual_seed(0)
    network = build_backbone(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.5 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2)
        if network.class_embedding is not None:
            network.class_embedding.weight.normal_(std=4.0)
    return network


def inputs(config: UNetConfig | DiTConfig, number: int = 2) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(number, 4, 8, 8, generator=generator)
    states = torch.randn(number, 5, 24, generator=generator) if config.takes_text else None
    return latents, torch.tensor([3, 700]), states


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_a_class_changes_its_own_row_alone(name: str) -> None:
    network = randomised(CONFIGS[name])
    args = inputs(network.config)
    first = network(*args, class_labels=torch.tensor([0, 4]))
    other = network(*args, class_labels=torch.tensor([1, 4]))
    assert (first[0] - other[0]).abs().max() > 1e-3
    assert torch.allclose(first[1], other[1], atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_several_classes_for_each_of_the_latents_are_each_of_them_alone(name: str) -> None:
    network = randomised(CONFIGS[name])
    latents, timesteps, states = inputs(network.config)
    labels = torch.tensor([0, 1, 4, 4])
    twice = None if states is None else torch.cat([states, states])
    together = network(latents, timesteps, twice, class_labels=labels)
    for row in (0, 1):
        alone = network(latents, timesteps, states, class_labels=labels[2 * row : 2 * row + 2])
        assert torch.allclose(together[2 * row : 2 * row + 2], alone, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_survives_its_json(name: str) -> None:
    assert backbone_config(CONFIGS[name].to_diffusers()) == CONFIGS[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_told_amiss_is_refused_by_name(name: str) -> None:
    network = randomised(CONFIGS[name])
    latents, timesteps, states = inputs(network.config)
    labels = torch.tensor([0, 1])
    with pytest.raises(UNetInputError, match="give `class_labels`"):
        network(latents, timesteps, states)
    with pytest.raises(UNetInputError, match="3 classes do not go with 2 latents"):
        network(latents, timesteps, states, class_labels=torch.tensor([0, 1, 2]))
    if states is None:
        with pytest.raises(UNetInputError, match="no texts: leave `hidden_states` out"):
            network(latents, timesteps, torch.zeros(2, 5, 24), class_labels=labels)
    else:
        with pytest.raises(UNetInputError, match="give `hidden_states`"):
            network(latents, timesteps, class_labels=labels)
        with pytest.raises(UNetInputError, match="4 classes do not go with 2 texts"):
            network(latents, timesteps, states, class_labels=torch.tensor([0, 1, 2, 3]))


def test_a_class_told_to_a_network_without_any_is_refused() -> None:
    network = randomised(replace(TEXT, num_class_embeds=None))
    with pytest.raises(UNetInputError, match="no classes: leave `class_labels` out"):
        network(*inputs(network.config), class_labels=torch.tensor([0, 1]))


def test_a_new_network_without_a_text_predicts_zero() -> None:
    network = UNet(CONFIGS["unet-no-text"])
    assert not network(*inputs(network.config), class_labels=torch.tensor([0, 1])).any()


def test_gradients_reach_the_classes_through_checkpointed_layers() -> None:
    network = randomised(CONFIGS["unet-no-text"]).train()
    network.gradient_checkpointing = True
    network(*inputs(network.config), class_labels=torch.tensor([0, 1])).sum().backward()
    touched = network.class_embedding.weight.grad.abs().sum(1) > 0
    assert touched.tolist() == [True, True, False, False, False]


@torch.no_grad()
def test_the_attention_of_pixels_is_perturbed_in_the_last_rows_alone() -> None:
    network = randomised(CONFIGS["unet-no-text"])
    args, labels = inputs(network.config), torch.tensor([0, 1])
    plain = network(*args, class_labels=labels)
    with perturbed_attention(network, ["mid"], num_rows=1):
        perturbed = network(*args, class_labels=labels)
    assert torch.equal(plain[0], perturbed[0])
    assert (plain[1] - perturbed[1]).abs().max() > 1e-4


@pytest.mark.parametrize("preset", [sd15, scenes])
def test_a_preset_without_its_text_has_heads_of_one_width(preset: Any) -> None:
    config = preset().without_text()
    widths = {config.head_width(level) for level in range(config.num_levels)}
    assert widths == {preset().head_width(0)}
    assert not config.takes_text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_heads": 4}, r"makes heads of \[8, 16\]"),
        ({"transformer_layers": 2}, "transformer_layers 2 wants a text"),
        ({"upcast_attention": True}, "upcast_attention True wants a text"),
        ({"num_class_embeds": 0}, "num_class_embeds 0: give 1 or more"),
        ({"class_embed_type": "timestep"}, "means nothing beside"),
    ],
)
def test_numbers_that_do_not_fit_a_network_without_a_text_are_refused(
    change: dict[str, Any], words: str
) -> None:
    config = replace(TEXT.without_text(), attention_levels=(True, True))
    with pytest.raises(UNetConfigError, match=words):
        replace(config, **change)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("attention_head_dim", 7),
        ("attention_head_dim", None),
        ("downsample_type", "resnet"),
        ("down_block_types", ["SkipDownBlock2D", "AttnDownBlock2D"]),
        ("sample_size", [8, 8]),
        ("a_setting_of_tomorrow", True),
    ],
)
def test_a_setting_of_unet2dmodel_that_we_have_not_is_refused(setting: str, value: Any) -> None:
    values = CONFIGS["unet-no-text"].to_diffusers() | {setting: value}
    with pytest.raises(UNetConfigError) as caught:
        UNetConfig.from_diffusers(values)
    named = value[0] if setting == "down_block_types" else value
    assert repr(named) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_classes_keep_ldms_name_in_a_single_file() -> None:
    network = UNet(TEXT)
    ldm = ldm_key_map(TEXT).inverse().apply(network.state_dict())
    assert tuple(ldm["label_emb.weight"].shape) == (5, TEXT.time_embed_dim)
    shapes = {name: tuple(tensor.shape) for name, tensor in ldm.items()}
    told = config_from_ldm(shapes, sample_size=8, num_heads=4)
    assert told == TEXT
    assert isinstance(build_backbone(DIT), DiT)
