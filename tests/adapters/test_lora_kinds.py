"""LoRA, LoHa, LoKr, whole differences and DoRA: from a file into a weight."""

from itertools import permutations
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sd_adapters import AdapterError, Lora, LoraConfig, load_loras, save_loras
from sd_unet import UNet, UNetConfig
from tests.adapters.plain import (
    CASES,
    IN,
    OUT,
    Case,
    Parts,
    answer,
    decomposed,
    input_for,
    parts_of,
)

NAME = "lora_unet_target"
TINY = UNetConfig(
    sample_size=8,
    block_out_channels=(32, 64),
    attention_levels=(True, False),
    layers_per_block=1,
    cross_attention_dim=24,
    num_heads=4,
)
EVERYWHERE = ("to_q", "to_out.0", "proj_in", "conv1", "downsamplers.0.conv")
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def loaded(tmp_path: Path, model: nn.Module, parts: Parts) -> Lora:
    tensors = {f"{NAME}.{part}": tensor.contiguous() for part, tensor in parts.items()}
    save_file(tensors, tmp_path / "lora.safetensors")
    return load_loras(tmp_path / "lora.safetensors", {"lora_unet": model})["lora_unet"]


def model_of(case: Case) -> nn.ModuleDict:
    torch.manual_seed(1)
    return nn.ModuleDict({"target": case.target()})


def adapted(target: nn.Linear | nn.Conv2d, x: Tensor, addition: Tensor, parts: Parts) -> Tensor:
    """Compute what the target answers with the additions, times 0.6, in its tensors."""
    weight = target.weight + 0.6 * addition
    bias = target.bias + 0.6 * parts.get("diff_b", torch.zeros(OUT))
    return answer(target, x, weight, bias)


@every_case
@torch.no_grad()
def test_injected_or_fused_it_is_the_formula_in_the_weight(case: Case, tmp_path: Path) -> None:
    model, parts = model_of(case), parts_of(case)
    target = model["target"]
    x = input_for(target)
    before = target(x)
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    expected = adapted(target, x, case.addition(parts) * case.scale, parts)
    assert not torch.allclose(before, expected, atol=1e-2)
    lora = loaded(tmp_path, model, parts)
    lora.strength = 0.6
    lora.inject(model)
    assert torch.allclose(target(x), expected, atol=1e-5)
    lora.fuse()
    assert torch.allclose(target(x), expected, atol=1e-5)
    assert not target._forward_hooks
    lora.eject()
    assert torch.equal(target(x), before)
    assert all(torch.equal(model.state_dict()[key], t) for key, t in weights.items())


@every_case
@pytest.mark.parametrize("axis", ["rows", "columns"])
@torch.no_grad()
def test_dora_brings_rows_or_columns_to_their_lengths(
    case: Case, axis: str, tmp_path: Path
) -> None:
    model, parts = model_of(case), parts_of(case)
    target = model["target"]
    ones = [1] * (target.weight.ndim - 2)
    lengths = torch.rand(OUT, 1, *ones) if axis == "rows" else torch.rand(1, IN, *ones)
    x = input_for(target)
    whole = decomposed(target.weight + case.addition(parts) * case.scale, lengths)
    expected = adapted(target, x, whole - target.weight, parts)
    lora = loaded(tmp_path, model, parts | {"dora_scale": lengths})
    lora.strength = 0.6
    lora.inject(model)
    assert torch.allclose(target(x), expected, atol=1e-5)
    lora.fuse()
    assert torch.allclose(target(x), expected, atol=1e-5)
    lora.eject()
    lora.strength = 1.0
    lora.inject(model)
    assert torch.allclose(
        target(x), answer(target, x, whole, target.bias + parts.get("diff_b", 0)), atol=1e-5
    )


@pytest.mark.parametrize("order", list(permutations(range(3))))
@torch.no_grad()
def test_several_kinds_add_up_by_their_strengths_and_eject_in_any_order(
    order: tuple[int, ...], tmp_path: Path
) -> None:
    cases = [case for case in CASES if case.name in ("lora", "loha", "lokr of low-rank factors")]
    model = model_of(cases[0])
    target, strengths = model["target"], (0.5, 1.0, -0.7)
    x = input_for(target)
    before, weight = target(x), target.weight.clone()
    loras, expected = [], weight.clone()
    for case, strength in zip(cases, strengths, strict=True):
        parts = parts_of(case)
        expected += strength * case.scale * case.addition(parts)
        loras.append(loaded(tmp_path, model, parts))
        loras[-1].strength = strength
        loras[-1].inject(model)
    assert torch.allclose(target(x), answer(target, x, expected, target.bias), atol=1e-5)
    for lora in loras:
        lora.fuse()
    assert torch.allclose(target(x), answer(target, x, expected, target.bias), atol=1e-5)
    for lora in reversed(loras):
        lora.unfuse()
    for index in order:
        loras[index].eject()
    assert torch.equal(target(x), before)
    assert torch.equal(target.weight, weight)


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(rank=3, alpha=2.0, targets=EVERYWHERE, kind=kind, dora=dora, tucker=tucker)
        for kind in ("lora", "loha", "lokr")
        for dora in (False, True)
        for tucker in (False, True)
    ],
    ids=lambda c: f"{c.kind}{'+dora' * c.dora}{'+tucker' * c.tucker}",
)
def test_new_one_changes_nothing_learns_and_is_the_same_from_its_file(
    config: LoraConfig, tmp_path: Path
) -> None:
    torch.manual_seed(2)
    unet = UNet(TINY).requires_grad_(False)
    for parameter in unet.parameters():
        parameter.normal_(std=parameter[0].numel() ** -0.5)
    args = torch.randn(1, 4, 8, 8), torch.tensor([9]), torch.randn(1, 5, 24)
    before = unet(*args)
    lora = Lora.create(unet, config)
    lora.inject(unet)
    assert torch.equal(unet(*args), before)
    unet(*args).square().mean().backward()
    assert any(bool(parameter.grad.any()) for parameter in lora.parameters())
    with torch.no_grad():
        for parameter in lora.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    injected = unet(*args)
    assert not torch.allclose(injected, before, atol=1e-2)
    lora.fuse()
    assert torch.allclose(unet(*args), injected, atol=1e-3)
    lora.eject()
    assert torch.equal(unet(*args), before)
    save_loras(tmp_path / "file.safetensors", [lora])
    again = load_loras(tmp_path / "file.safetensors", {"lora_unet": unet})["lora_unet"]
    assert all(torch.equal(again.state_dict()[k], t) for k, t in lora.state_dict().items())
    again.inject(unet)
    assert torch.equal(unet(*args), injected)
    with safe_open(tmp_path / "file.safetensors", framework="pt") as opened:
        is_plain = opened.metadata()["ss_network_module"] == "networks.lora"
    assert is_plain == (config.kind == "lora" and not config.dora)


def test_blocks_have_their_own_ranks_and_strengths() -> None:
    unet = UNet(TINY).requires_grad_(False)
    config = LoraConfig(
        rank=4, alpha=2.0, targets=("to_q",), block_ranks=(("down_blocks.0", 2), ("mid_block", 1))
    )
    lora = Lora.create(unet, config)
    sizes = {name: (layer.rank, float(layer.alpha)) for name, layer in lora.items()}
    for name, size in sizes.items():
        block = (2, 1.0) if "down_blocks_0" in name else (1, 0.5) if "mid" in name else (4, 2.0)
        assert size == block
    for parameter in lora.parameters():
        nn.init.normal_(parameter)
    lora.inject(unet)
    lora.block_strengths = {"down_blocks.0": 0.0, "mid_block": 0.5}
    lora.strength = 0.5
    for name, strength in (("down_blocks_0", 0.0), ("mid_block", 0.25), ("up_blocks", 0.5)):
        target_name = next(key for key in lora if name in key)
        target, layer = lora._targets[target_name], lora[target_name]
        x = torch.randn(1, 3, target.in_features)
        expected = x @ (target.weight + strength * layer.product() * layer.scale).T
        assert torch.allclose(target(x), expected, atol=1e-4)


def test_dropout_acts_in_training_only() -> None:
    model = nn.ModuleDict({"target": nn.Linear(IN, OUT)})
    lora = Lora.create(model, LoraConfig(rank=2, targets=("target",), dropout=0.5))
    nn.init.normal_(lora[NAME].lora_up.weight)
    lora.inject(model)
    x = torch.randn(3, IN)
    assert not torch.equal(model["target"](x), model["target"](x))
    lora.eval()
    assert torch.equal(model["target"](x), model["target"](x))


@every_case
@pytest.mark.parametrize("damage", ["lacks a part", "has a part too many", "has another shape"])
def test_layer_that_is_not_whole_is_an_error_with_its_keys(
    case: Case, damage: str, tmp_path: Path
) -> None:
    parts = parts_of(case)
    first = next(iter(case.shapes))
    wanted = set(parts)
    if damage == "lacks a part":
        if len(case.shapes) == 1 or first in ("lora_mid.weight", "hada_t1"):
            first = list(case.shapes)[-1]
        del parts[first]
        wanted = set(parts)
        if "diff_b" in parts:
            return
    elif damage == "has a part too many":
        parts["mystery"] = torch.ones(1)
        wanted = {"mystery"}
    else:
        parts[first] = torch.ones(7, *parts[first].shape[1:])
    with pytest.raises(AdapterError) as caught:
        loaded(tmp_path, model_of(case), parts)
    assert "\n" not in str(caught.value)
    keys = {key.removeprefix(f"{NAME}.") for key in caught.value.keys}
    assert keys == wanted


def test_two_kinds_in_one_layer_and_a_bias_too_many_are_refused(tmp_path: Path) -> None:
    both = parts_of(CASES[0]) | {"hada_w1_a": torch.ones(OUT, 2)}
    with pytest.raises(AdapterError) as caught:
        loaded(tmp_path, model_of(CASES[0]), both)
    assert len(caught.value.keys) == len(both)
    model = nn.ModuleDict({"target": nn.Linear(IN, OUT, bias=False)})
    with pytest.raises(AdapterError) as caught:
        loaded(tmp_path, model, parts_of(CASES[-1]))
    assert f"{NAME}.diff_b" in caught.value.keys


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_down.weight": torch.ones(0, IN), "lora_up.weight": torch.ones(OUT, 0)},
        {"alpha": torch.ones(2)},
        {"lora_up.weight": torch.tensor(1.0)},
        {"lora_down.weight": torch.tensor(1.0)},
    ],
)
def test_tensors_of_odd_shapes_are_one_line(changes: Parts, tmp_path: Path) -> None:
    with pytest.raises(AdapterError) as caught:
        loaded(tmp_path, model_of(CASES[0]), parts_of(CASES[0]) | changes)
    assert caught.value.keys
    assert "\n" not in str(caught.value)


def test_aliases_name_layers_of_other_layouts(tmp_path: Path) -> None:
    model = model_of(CASES[0])
    parts = parts_of(CASES[0])
    tensors = {f"lora_unet_input_blocks_1_0.{part}": tensor for part, tensor in parts.items()}
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(AdapterError):
        load_loras(tmp_path / "lora.safetensors", {"lora_unet": model})
    aliases = {"lora_unet_input_blocks_1_0": NAME}
    twice = tensors | {f"{NAME}.{part}": tensor.clone() for part, tensor in parts.items()}
    save_file(twice, tmp_path / "twice.safetensors")
    with pytest.raises(AdapterError, match="two names"):
        load_loras(tmp_path / "twice.safetensors", {"lora_unet": model}, aliases)
    assert list(
        load_loras(tmp_path / "lora.safetensors", {"lora_unet": model}, aliases)["lora_unet"]
    ) == [NAME]
