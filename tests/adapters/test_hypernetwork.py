"""A hypernetwork in a model, and its files."""

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from sd_adapters import (
    Adapter,
    AdapterError,
    Hypernetwork,
    HypernetworkConfig,
    Origin,
    load_hypernetwork,
    save_hypernetwork,
)
from sd_unet import UNet, UNetConfig
from tests.adapters.web_ui import assert_web_ui_opens

TINY = UNetConfig(
    sample_size=8,
    block_out_channels=(32, 64),
    attention_levels=(True, False),
    layers_per_block=1,
    cross_attention_dim=24,
    num_heads=4,
)
RICH = HypernetworkConfig(
    layer_structure=(1, 2, 1.5, 1),
    activation_func="mish",
    weight_initialization="KaimingNormal",
    is_layer_norm=True,
    dropout_structure=(0, 0.2, 0.1, 0),
    activate_output=True,
)


def randomise(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            std = parameter[0].numel() ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def learnt(model: nn.Module, seed: int = 1, config: HypernetworkConfig = RICH) -> Hypernetwork:
    hypernetwork = Hypernetwork.create(model, config)
    randomise(hypernetwork, seed)
    return hypernetwork.eval()


@pytest.fixture
def unet() -> UNet:
    unet = UNet(TINY)
    randomise(unet, seed=0)
    return unet


@pytest.fixture
def args() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    return latents, torch.tensor([3, 700]), torch.randn(2, 5, 24, generator=generator)


def test_context_before_keys_and_values_is_what_the_formula_says() -> None:
    model = nn.ModuleDict(
        {"to_q": nn.Linear(6, 6), "to_k": nn.Linear(6, 8), "to_v": nn.Linear(6, 8)}
    )
    config = HypernetworkConfig(
        layer_structure=(1, 2, 1), activation_func="relu", is_layer_norm=True
    )
    hypernetwork = learnt(model, 2, config)
    hypernetwork.strength = 0.6
    x = torch.randn(2, 5, 6)
    query = model["to_q"](x)
    hypernetwork.inject(model)
    state = hypernetwork.state_dict()
    for side in ("k", "v"):
        w = {key.removeprefix(f"6.{side}.linear."): t for key, t in state.items()}
        hidden = F.relu(x @ w["0.weight"].T + w["0.bias"])
        hidden = F.layer_norm(hidden, (12,), w["2.weight"], w["2.bias"])
        hidden = hidden @ w["3.weight"].T + w["3.bias"]
        hidden = F.layer_norm(hidden, (6,), w["4.weight"], w["4.bias"])
        projection = model[f"to_{side}"]
        expected = F.linear(x + 0.6 * hidden, projection.weight, projection.bias)
        assert torch.allclose(projection(x), expected, atol=1e-5)
    assert torch.equal(model["to_q"](x), query)


def test_each_width_changes_the_attention_of_that_width(
    unet: UNet, args: tuple[Tensor, ...]
) -> None:
    hypernetwork = learnt(unet)
    # The text's 24, and the pixels' 32 and 64 in self-attention.
    assert hypernetwork.widths == (24, 32, 64)
    before = unet(*args)
    for width in hypernetwork.widths:
        alone = Hypernetwork.create(unet, RICH, [width])
        randomise(alone, seed=3)
        alone.inject(unet)
        hooked = {name for name, module in unet.named_modules() if module._forward_pre_hooks}
        assert all(unet.get_submodule(name).in_features == width for name in hooked)
        assert {name.rpartition(".")[2] for name in hooked} == {"to_k", "to_v"}
        assert {("attn2" in name) for name in hooked} == {width == 24}
        assert not torch.allclose(unet(*args), before, atol=1e-3)
        alone.eject()
    assert torch.equal(unet(*args), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hypernetwork_ejects_bit_for_bit(
    unet: UNet, args: tuple[Tensor, ...], dtype: torch.dtype
) -> None:
    unet.to(dtype)
    latents, timesteps, hidden_states = args
    inputs = latents.to(dtype), timesteps, hidden_states.to(dtype)
    before = unet(*inputs)
    weights = {key: tensor.clone() for key, tensor in unet.state_dict().items()}
    adapter: Adapter = learnt(unet)
    adapter.inject(unet)
    assert unet(*inputs).dtype == dtype
    assert not torch.equal(unet(*inputs), before)
    assert list(unet.state_dict()) == list(weights)
    adapter.eject()
    assert torch.equal(unet(*inputs), before)
    assert all(torch.equal(unet.state_dict()[key], tensor) for key, tensor in weights.items())
    assert all(not module._forward_pre_hooks for module in unet.modules())


@pytest.mark.parametrize("order", list(permutations(range(2))))
def test_several_follow_one_another_and_eject_in_any_order(order: tuple[int, ...]) -> None:
    model = nn.ModuleDict({"to_k": nn.Linear(6, 8), "to_v": nn.Linear(6, 8)})
    x = torch.randn(2, 5, 6)
    before = model["to_k"](x)
    both = [learnt(model, seed) for seed in range(2)]
    both[0].strength = 0.5
    context = x
    for hypernetwork in both:
        hypernetwork.inject(model)
        context = context + hypernetwork.strength * hypernetwork["6"]["k"](context)
    expected = F.linear(context, model["to_k"].weight, model["to_k"].bias)
    assert torch.allclose(model["to_k"](x), expected, atol=1e-6)
    for index in order:
        both[index].eject()
    assert torch.equal(model["to_k"](x), before)


def test_strength_zero_is_as_before_and_only_the_hypernetwork_learns(
    unet: UNet, args: tuple[Tensor, ...]
) -> None:
    before = unet(*args)
    unet.requires_grad_(False)
    hypernetwork = learnt(unet)
    hypernetwork.inject(unet)
    hypernetwork.strength = 0.0
    assert torch.equal(unet(*args), before)
    hypernetwork.strength = 1.0
    unet(*args).square().mean().backward()
    assert all(parameter.grad is None for parameter in unet.parameters())
    assert all(parameter.grad is not None for parameter in hypernetwork.parameters())


@pytest.mark.parametrize(
    ("config", "numbers"),
    [
        (HypernetworkConfig(), "0 1"),
        (HypernetworkConfig(activation_func="relu"), "0 2"),
        (HypernetworkConfig(activation_func="relu", activate_output=True), "0 2"),
        (HypernetworkConfig(is_layer_norm=True), "0 1 2 3"),
        (
            HypernetworkConfig(
                layer_structure=(1, 2, 2, 1),
                activation_func="relu",
                is_layer_norm=True,
                dropout_structure=(0, 0.3, 0, 0),
            ),
            "0 2 4 6 7 8",
        ),
        (RICH, "0 2 4 6 8 10"),
    ],
)
def test_layers_have_the_numbers_of_the_web_ui(config: HypernetworkConfig, numbers: str) -> None:
    keys = Hypernetwork([8], config).state_dict()
    expected = [
        f"8.{side}.linear.{number}.{part}"
        for side in ("k", "v")
        for number in numbers.split()
        for part in ("weight", "bias")
    ]
    assert list(keys) == expected


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("Normal", 0.01),
        ("XavierNormal", (2 / 300) ** 0.5),
        ("XavierUniform", (2 / 300) ** 0.5),
        ("KaimingNormal", (2 / 100) ** 0.5),
        ("KaimingUniform", (2 / 100) ** 0.5),
    ],
)
def test_weights_are_drawn_as_named_and_biases_are_zero(name: str, std: float) -> None:
    torch.manual_seed(0)
    config = HypernetworkConfig(weight_initialization=name, activation_func="relu")
    first = Hypernetwork([100], config)["100"]["k"].linear[0]
    assert float(first.weight.detach().std()) == pytest.approx(std, rel=0.03)
    assert not first.bias.any()


def test_misuse_is_one_line(unet: UNet) -> None:
    hypernetwork = learnt(unet)
    with pytest.raises(AdapterError, match="cannot be fused"):
        hypernetwork.fuse()
    hypernetwork.inject(unet)
    with pytest.raises(AdapterError, match="injected already"):
        hypernetwork.inject(unet)
    with pytest.raises(AdapterError, match="of width 48") as caught:
        Hypernetwork([24, 48], RICH).inject(unet)
    assert caught.value.keys == ("48.k", "48.v")
    for values, match in (
        ({"activation_func": "wave"}, "'wave'"),
        ({"weight_initialization": "Odd"}, "'Odd'"),
        ({"layer_structure": (1, 2)}, "from 1 to 1"),
        ({"dropout_structure": (0, 1, 0)}, "3 numbers"),
    ):
        with pytest.raises(AdapterError, match=match):
            HypernetworkConfig(**values)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("config", [HypernetworkConfig(), RICH])
def test_file_read_back_is_the_same(
    unet: UNet, tmp_path: Path, suffix: str, config: HypernetworkConfig
) -> None:
    hypernetwork = learnt(unet, config=config)
    hypernetwork.name = "dogs"
    hypernetwork.origin = Origin(step=70, sd_checkpoint="abcd", sd_checkpoint_name="sd15")
    path = tmp_path / f"file{suffix}"
    save_hypernetwork(path, hypernetwork)
    loaded = load_hypernetwork(path)
    assert (loaded.name, loaded.origin, loaded.config, loaded.widths) == (
        "dogs",
        hypernetwork.origin,
        config,
        hypernetwork.widths,
    )
    assert list(loaded.state_dict()) == list(hypernetwork.state_dict())
    for key, tensor in hypernetwork.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor)
    loaded.inject(unet)


def test_pt_has_every_key_of_the_web_ui_and_opens_there(unet: UNet, tmp_path: Path) -> None:
    path = tmp_path / "dogs.pt"
    save_hypernetwork(path, learnt(unet))
    assert_web_ui_opens(path)
    content = torch.load(path, weights_only=True)
    assert {key for key in content if isinstance(key, str)} == {
        "step",
        "name",
        "layer_structure",
        "activation_func",
        "is_layer_norm",
        "weight_initialization",
        "use_dropout",
        "dropout_structure",
        "activate_output",
        "last_layer_dropout",
        "sd_checkpoint",
        "sd_checkpoint_name",
    }
    assert {key for key in content if isinstance(key, int)} == {24, 32, 64}
    keys, values = content[24]
    assert keys["linear.0.weight"].shape == (48, 24)
    assert keys.keys() == values.keys()
    assert (content["use_dropout"], content["last_layer_dropout"]) == (True, True)


def test_safetensors_says_in_its_header_how_it_is_built(unet: UNet, tmp_path: Path) -> None:
    path = tmp_path / "dogs.safetensors"
    save_hypernetwork(path, learnt(unet))
    with safe_open(path, framework="pt") as opened:
        assert '"activation_func": "mish"' in opened.metadata()["hypernetwork"]
        assert "24.k.linear.0.weight" in set(opened.keys())


def plain_file(path: Path, **changes: Any) -> Path:
    """Write what the web UI writes for the structure 1, 2, 2, 1 with uniform dropout."""
    structure = [1, 2, 2, 1]
    numbers, place = [], 0
    for index in range(3):
        numbers.append(place)
        place += 2 if index < 2 else 1  # the linear and its activation
        place += 1 if index < 1 else 0  # and a dropout, but not before the last layer
    state = {}
    for index, number in enumerate(numbers):
        width, height = 6 * structure[index], 6 * structure[index + 1]
        state[f"linear.{number}.weight"] = torch.randn(height, width)
        state[f"linear.{number}.bias"] = torch.randn(height)
    content: dict[Any, Any] = {
        6: (state, {key: tensor + 1 for key, tensor in state.items()}),
        "step": 5,
        "name": "cats",
        "layer_structure": structure,
        "activation_func": "tanh",
        "use_dropout": True,
        "last_layer_dropout": False,
        "activate_output": False,
    }
    torch.save(content | changes, path)
    return path


def test_web_uis_file_computes_what_the_web_ui_computes(tmp_path: Path) -> None:
    path = plain_file(tmp_path / "cats.pt")
    loaded = load_hypernetwork(path)
    assert loaded.config.dropout_structure == (0, 0.3, 0, 0)
    assert (loaded.name, loaded.origin.step) == ("cats", 5)
    state = torch.load(path, weights_only=True)[6][1]
    x = torch.randn(3, 6)
    hidden = torch.tanh(x @ state["linear.0.weight"].T + state["linear.0.bias"])
    hidden = torch.tanh(hidden @ state["linear.3.weight"].T + state["linear.3.bias"])
    expected = hidden @ state["linear.5.weight"].T + state["linear.5.bias"]
    assert torch.allclose(loaded["6"]["v"](x), expected, atol=1e-5)


def test_oldest_files_have_two_linears_by_name_and_say_nothing(tmp_path: Path) -> None:
    state = {
        "linear1.weight": torch.randn(12, 6).half(),
        "linear1.bias": torch.randn(12).half(),
        "linear2.weight": torch.randn(6, 12).half(),
        "linear2.bias": torch.randn(6).half(),
    }
    torch.save({6: (state, state)}, tmp_path / "old.pt")
    loaded = load_hypernetwork(tmp_path / "old.pt")
    assert loaded.name == "old"
    assert loaded.config == HypernetworkConfig(activate_output=True)
    assert torch.equal(loaded.state_dict()["6.k.linear.1.weight"], state["linear2.weight"].float())


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"mystery": 3}, {"mystery"}),
        ({"activation_func": "linear"}, None),
        ({"use_dropout": False}, None),
        ({"layer_structure": [1, 3, 2, 1]}, None),
        ({8: ({}, {})}, set()),
        ({6: ({"linear.0.wobble": torch.ones(1)},) * 2}, None),
        ({6: "text"}, set()),
        ({"layer_structure": 7}, set()),
    ],
)
def test_what_does_not_fit_is_an_error_with_the_keys(
    tmp_path: Path, changes: dict[Any, Any], keys: set[str] | None
) -> None:
    path = plain_file(tmp_path / "cats.pt", **{k: v for k, v in changes.items() if type(k) is str})
    content = torch.load(path, weights_only=True)
    torch.save(content | changes, path)
    with pytest.raises(AdapterError) as caught:
        load_hypernetwork(path)
    assert "\n" not in str(caught.value)
    assert set(caught.value.keys) == keys if keys is not None else caught.value.keys
