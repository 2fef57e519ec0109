"""Merging, resizing, extracting and describing LoRAs."""

import pytest
import torch
from torch import Tensor, nn

from sd_adapters import (
    AdapterError,
    Lora,
    LoraConfig,
    Reduction,
    describe_lora,
    extract_lora,
    keys_by_name,
    merge_loras,
    resize_lora,
)
from tests.adapters.plain import CASES, parts_of

NAMES = ("lora_unet_linear", "lora_unet_conv", "lora_unet_point")


class Model(nn.Module):
    """Has a linear, a 3x3 and a 1x1 convolution, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 8)
        self.conv = nn.Conv2d(12, 8, 3)
        self.point = nn.Conv2d(12, 8, 1)
        self.norm = nn.LayerNorm(8)


def learnt(rank: int, alpha: float, seed: int, **options: object) -> Lora:
    torch.manual_seed(seed)
    config = LoraConfig(rank=rank, alpha=alpha, targets=("linear", "conv", "point"), **options)
    lora = Lora.create(Model(), config)
    with torch.no_grad():
        for parameter in lora.parameters():
            parameter.normal_()
    return lora


def additions(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Restate what each plain layer adds to its weight."""
    found = {}
    for name in NAMES:
        if f"{name}.lora_up.weight" not in tensors:
            continue
        up, down = tensors[f"{name}.lora_up.weight"], tensors[f"{name}.lora_down.weight"]
        scale = tensors[f"{name}.alpha"] / len(down)
        found[name] = (up.flatten(1) @ down.flatten(1)) * scale
    return found


@torch.no_grad()
def test_merged_lora_adds_what_all_add_by_their_strengths() -> None:
    first, second = learnt(2, 3.0, seed=1), learnt(3, 1.0, seed=2, tucker=True)
    third = {
        "lora_unet_point.lora_down.weight": torch.randn(1, 12),
        "lora_unet_point.lora_up.weight": torch.randn(8, 1),
    }
    merged = merge_loras([(first.state_dict(), 0.5), (second.state_dict(), -2.0), (third, 1.0)])
    assert {len(merged[f"{name}.lora_down.weight"]) for name in NAMES} == {5, 6}
    found = additions(merged)
    for name in NAMES:
        expected = 0.5 * first[name].product() * 3 / 2 - 2.0 * second[name].product() * 1 / 3
        expected = expected.flatten(1)
        if name == "lora_unet_point":
            expected = (
                expected + third[f"{name}.lora_up.weight"] @ third[f"{name}.lora_down.weight"]
            )
        assert torch.allclose(found[name], expected, atol=1e-5)
    assert merged["lora_unet_conv.lora_down.weight"].shape == (5, 12, 3, 3)
    assert merged["lora_unet_point.lora_up.weight"].shape == (8, 6, 1, 1)


def test_what_cannot_be_merged_is_an_error_with_its_keys() -> None:
    plain = learnt(2, 3.0, seed=1)
    with pytest.raises(AdapterError, match="low-rank") as caught:
        merge_loras([(plain.state_dict(), 1.0), (learnt(2, 3.0, 1, kind="loha").state_dict(), 1.0)])
    assert "lora_unet_linear.hada_w1_a" in caught.value.keys
    with pytest.raises(AdapterError, match="fuse it") as caught:
        merge_loras([(learnt(2, 3.0, 1, dora=True).state_dict(), 1.0)])
    assert set(caught.value.keys) == {f"{name}.dora_scale" for name in NAMES}
    other = {f"{NAMES[0]}.lora_down.weight": torch.ones(1, 9)}
    other[f"{NAMES[0]}.lora_up.weight"] = torch.ones(8, 1)
    with pytest.raises(AdapterError, match="different shapes") as caught:
        merge_loras([(plain.state_dict(), 1.0), (other, 1.0)])
    assert caught.value.keys == (NAMES[0],)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"lora_up.weight": torch.ones(8, 3)}, "no rank in common"),
        ({"lora_down.weight": torch.ones(0, 12), "lora_up.weight": torch.ones(8, 0)}, "no rank"),
        ({"alpha": torch.ones(2)}, "one number"),
        ({"lora_mid.weight": torch.ones(1, 1, 3, 3)}, "not of their rank"),
    ],
)
def test_layers_that_contradict_themselves_are_one_line(
    changes: dict[str, Tensor], match: str
) -> None:
    parts = parts_of(CASES[0]) | changes
    tensors = {f"{NAMES[0]}.{part}": tensor for part, tensor in parts.items()}
    with pytest.raises(AdapterError, match=match) as caught:
        resize_lora(tensors, Reduction(rank=1))
    assert caught.value.keys


@torch.no_grad()
@pytest.mark.parametrize("rank", [1, 2, 4, 9])
def test_resized_lora_is_the_nearest_and_tells_the_energy(rank: int) -> None:
    lora = learnt(4, 6.0, seed=3)
    whole = additions(lora.state_dict())
    reduced = resize_lora(lora.state_dict(), Reduction(rank=rank))
    for name, addition in additions(dict(reduced.tensors)).items():
        kept = min(rank, 4)
        assert len(reduced.tensors[f"{name}.lora_down.weight"]) == kept
        assert reduced.tensors[f"{name}.alpha"] == kept
        values = torch.linalg.svdvals(whole[name])
        # Eckart and Young: the error is what the other singular values hold.
        error = (addition - whole[name]).square().sum()
        assert float(error) == pytest.approx(
            float(values[kept:].square().sum()), rel=1e-5, abs=1e-3
        )
        share = 1 - error / whole[name].square().sum()
        assert reduced.energies[name] == pytest.approx(float(share), abs=1e-5)
    shapes = {name: reduced.tensors[f"{name}.lora_down.weight"].shape[1:] for name in NAMES}
    assert shapes == {NAMES[0]: (12,), NAMES[1]: (12, 3, 3), NAMES[2]: (12, 1, 1)}


@torch.no_grad()
@pytest.mark.parametrize("energy", [0.5, 0.9, 0.999, 1.0])
def test_least_rank_that_keeps_the_energy_is_taken(energy: float) -> None:
    lora = learnt(6, 6.0, seed=4)
    reduced = resize_lora(lora.state_dict(), Reduction(energy=energy))
    for name, addition in additions(lora.state_dict()).items():
        shares = torch.linalg.svdvals(addition.double()).square().cumsum(0)
        shares = shares / shares[-1]
        rank = len(reduced.tensors[f"{name}.lora_down.weight"])
        assert reduced.energies[name] >= energy - 1e-9
        assert rank == 1 or shares[rank - 2] < energy
    limited = resize_lora(lora.state_dict(), Reduction(energy=energy, rank=2))
    assert {len(limited.tensors[f"{name}.lora_down.weight"]) for name in NAMES} <= {1, 2}


def test_empty_lora_is_resized_to_nothing_of_rank_1() -> None:
    reduced = resize_lora(
        Lora.create(Model(), LoraConfig(targets=("linear",))).state_dict(), Reduction(energy=0.9)
    )
    assert len(reduced.tensors[f"{NAMES[0]}.lora_down.weight"]) == 1
    assert not additions(dict(reduced.tensors))[NAMES[0]].any()


@torch.no_grad()
def test_extracted_lora_makes_of_the_one_model_the_other() -> None:
    model = Model()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    lora = learnt(3, 2.0, seed=5)
    lora.inject(model)
    lora.fuse()
    model.norm.weight += 1
    found = extract_lora(
        before, model.state_dict(), keys_by_name(model, "lora_unet"), Reduction(rank=3)
    )
    assert found.left_out == ("norm.weight",)
    assert all(energy == pytest.approx(1, abs=1e-6) for energy in found.energies.values())
    wanted = additions(lora.state_dict())
    for name, addition in additions(dict(found.tensors)).items():
        assert torch.allclose(addition, wanted[name], atol=1e-5)
    assert found.tensors["lora_unet_conv.lora_up.weight"].shape == (8, 3, 1, 1)
    less = extract_lora(
        before, model.state_dict(), keys_by_name(model, "lora_unet"), Reduction(rank=1)
    )
    assert all(0 < energy < 1 for energy in less.energies.values())


@torch.no_grad()
def test_what_takes_long_says_how_far_it_is() -> None:
    before = Model().state_dict()
    after = {key: tensor + 1 for key, tensor in before.items()}
    heard: list[int] = []
    keys = keys_by_name(Model(), "lora_unet")
    found = extract_lora(before, after, keys, Reduction(rank=1), heard.append)
    assert heard == list(range(1, len(before) + 1))
    heard.clear()
    resize_lora(found.tensors, Reduction(rank=1), heard.append)
    assert heard == list(range(1, len(found.energies) + 1))


def test_models_that_give_no_lora_are_one_line() -> None:
    model = Model()
    paths = keys_by_name(model, "lora_unet")
    state = model.state_dict()
    with pytest.raises(AdapterError, match="differs"):
        extract_lora(state, state, paths, Reduction(rank=1))
    with pytest.raises(AdapterError, match="families") as caught:
        extract_lora(state, {**state, "more": torch.ones(1)}, paths, Reduction(rank=1))
    assert caught.value.keys == ("more",)


def test_only_what_changed_is_extracted() -> None:
    state = Model().state_dict()
    after = {key: tensor.clone() for key, tensor in state.items()}
    after["linear.weight"] += 1
    found = extract_lora(state, after, keys_by_name(Model(), "lora_unet"), Reduction(energy=0.99))
    assert {key.partition(".")[0] for key in found.tensors} == {NAMES[0]}
    assert len(found.tensors[f"{NAMES[0]}.lora_down.weight"]) == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "give a rank"),
        ({"rank": 0}, "rank 0"),
        ({"energy": 1.5}, "1.5"),
        ({"energy": 0.0}, "0.0"),
    ],
)
def test_reductions_that_mean_nothing_are_refused(options: dict[str, float], match: str) -> None:
    with pytest.raises(AdapterError, match=match):
        Reduction(**options)


def test_file_is_described() -> None:
    tensors = {}
    for index, case in enumerate(CASES):
        prefix = "lora_te" if index == 0 else "lora_unet"
        tensors |= {f"{prefix}_{index}.{part}": t for part, t in parts_of(case).items()}
    tensors["lora_unet_1.dora_scale"] = torch.ones(8, 1)
    info = describe_lora(tensors, {"ss_tag": "cats"})
    assert info.layout == "kohya"
    assert info.kinds == {"lora": 5, "loha": 3, "lokr": 5, "full": 2}
    assert info.ranks == {4: 5, 2: 6}
    assert info.alphas == {3.0: 15}
    assert info.models == {"lora_te": 1, "lora_unet": 14}
    assert info.metadata == {"ss_tag": "cats"}
    assert [layer.name for layer in info.layers if layer.is_dora] == ["lora_unet_1"]
    numbers = sum(t.numel() for key, t in tensors.items() if not key.endswith("alpha"))
    assert info.num_parameters == numbers
    peft = {
        "unet.a.to_q.lora_A.weight": torch.ones(2, 4),
        "unet.a.to_q.lora_B.weight": torch.ones(4, 2),
    }
    assert describe_lora(peft, {}).layout == "diffusers"
