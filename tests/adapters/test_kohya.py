"""LoRA files in kohya's layout."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sd_adapters import (
    AdapterError,
    Lora,
    LoraConfig,
    aliases_through,
    load_loras,
    save_loras,
)
from sd_unet import UNet, UNetConfig, ldm_key_map

TINY = UNetConfig(
    block_out_channels=(32, 64),
    attention_levels=(True, False),
    layers_per_block=1,
    cross_attention_dim=24,
    num_heads=4,
)
TO_Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


class Text(nn.Module):
    """Stands for a text encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(6, 6)


@pytest.fixture(scope="module")
def unet() -> UNet:
    return UNet(TINY)


def learnt(model: nn.Module, config: LoraConfig, prefix: str = "lora_unet") -> Lora:
    lora = Lora.create(model, config, prefix)
    with torch.no_grad():
        for parameter in lora.parameters():
            parameter.normal_()
    return lora


@pytest.fixture
def file(unet: UNet, tmp_path: Path) -> Path:
    config = LoraConfig(rank=3, alpha=2.0, targets=("to_q", "to_k", "conv1"))
    save_loras(tmp_path / "lora.safetensors", [learnt(unet, config)])
    return tmp_path / "lora.safetensors"


def rewrite(file: Path, changes: dict[str, Tensor | None]) -> None:
    tensors = load_file(file)
    for key, tensor in changes.items():
        tensors.pop(key, None)
        if tensor is not None:
            tensors[key] = tensor
    save_file(tensors, file)


def test_file_has_kohyas_names_shapes_and_header(file: Path) -> None:
    tensors = load_file(file)
    assert tensors[f"{TO_Q}.lora_down.weight"].shape == (3, 32)
    assert tensors[f"{TO_Q}.lora_up.weight"].shape == (32, 3)
    assert tensors[f"{TO_Q}.alpha"].shape == ()
    assert tensors[f"{TO_Q}.alpha"] == 2.0
    conv = "lora_unet_mid_block_resnets_0_conv1"
    assert tensors[f"{conv}.lora_down.weight"].shape == (3, 64, 3, 3)
    assert tensors[f"{conv}.lora_up.weight"].shape == (64, 3, 1, 1)
    with safe_open(file, framework="pt") as opened:
        header = opened.metadata()
    assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("3", "2")


def test_file_read_back_is_the_same_adapter(unet: UNet, tmp_path: Path) -> None:
    lora = learnt(unet, LoraConfig(rank=3, alpha=2.0, targets=("to_q", "conv1", "proj_in")))
    save_loras(tmp_path / "lora.safetensors", [lora], {"ss_tag": "cats"})
    loaded = load_loras(tmp_path / "lora.safetensors", {"lora_unet": unet})["lora_unet"]
    assert loaded.state_dict().keys() == lora.state_dict().keys()
    for key, tensor in lora.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor)
    assert all(not tensor.is_meta for tensor in loaded.state_dict().values())
    loaded.inject(unet)
    loaded.eject()


def test_one_file_holds_the_loras_of_two_models(unet: UNet, tmp_path: Path) -> None:
    text = Text()
    loras = [
        learnt(unet, LoraConfig(rank=4)),
        learnt(text, LoraConfig(rank=2, targets=("q_proj",)), "lora_te_text_model"),
    ]
    save_loras(tmp_path / "lora.safetensors", loras)
    models = {"lora_unet": unet, "lora_te_text_model": text}
    loaded = load_loras(tmp_path / "lora.safetensors", models)
    assert loaded.keys() == models.keys()
    assert loaded["lora_te_text_model"].prefix == "lora_te_text_model"
    with pytest.raises(AdapterError) as caught:
        load_loras(tmp_path / "lora.safetensors", {"lora_unet": unet})
    assert set(caught.value.keys) == {
        f"lora_te_text_model_q_proj.{part}"
        for part in ("alpha", "lora_down.weight", "lora_up.weight")
    }


def test_an_only_text_encoder_may_be_called_the_first(unet: UNet, tmp_path: Path) -> None:
    text, prefix = Text(), "lora_te1_text_model"
    path = tmp_path / "lora.safetensors"
    config = LoraConfig(rank=2, targets=("q_proj",))
    first = learnt(text, config, prefix)
    save_loras(path, [learnt(unet, LoraConfig(rank=4)), first])
    models = {"lora_unet": unet, "lora_te_text_model": text}
    found = load_loras(path, models)["lora_te_text_model"].state_dict()
    for key, tensor in first.state_dict().items():
        assert torch.equal(found[key.replace("te1", "te")], tensor)
    save_loras(path, [first, learnt(text, config, "lora_te2_text_model")])
    with pytest.raises(AdapterError) as caught:
        load_loras(path, models)
    assert {key.partition("_text")[0] for key in caught.value.keys} == {"lora_te1", "lora_te2"}


def test_absent_alpha_means_the_rank(unet: UNet, file: Path) -> None:
    rewrite(file, {f"{TO_Q}.alpha": None})
    loaded = load_loras(file, {"lora_unet": unet})["lora_unet"]
    assert loaded.state_dict()[f"{TO_Q}.alpha"] == 3.0


def test_ranks_may_differ_and_half_precision_is_read(unet: UNet, file: Path) -> None:
    rewrite(
        file,
        {
            f"{TO_Q}.lora_down.weight": torch.ones(5, 32, dtype=torch.float16),
            f"{TO_Q}.lora_up.weight": torch.ones(32, 5, dtype=torch.float16),
            f"{TO_Q}.alpha": torch.tensor([4.0], dtype=torch.float16),
        },
    )
    loaded = load_loras(file, {"lora_unet": unet})["lora_unet"]
    assert loaded.state_dict()[f"{TO_Q}.lora_down.weight"].dtype == torch.float32
    assert loaded.state_dict()[f"{TO_Q}.lora_up.weight"].shape == (32, 5)


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        (
            {"lora_unet_no_such.lora_down.weight": torch.ones(1)},
            {"lora_unet_no_such.lora_down.weight"},
        ),
        ({f"{TO_Q}.oft_diag": torch.ones(1)}, {f"{TO_Q}.oft_diag"}),
        (
            {f"{TO_Q}.lora_up.weight": None},
            {f"{TO_Q}.lora_down.weight", f"{TO_Q}.alpha"},
        ),
        (
            {f"{TO_Q}.lora_down.weight": torch.ones(3, 31)},
            {f"{TO_Q}.{part}" for part in ("lora_down.weight", "lora_up.weight", "alpha")},
        ),
    ],
    ids=["no such module", "another kind", "half a layer", "another shape"],
)
def test_what_does_not_fit_is_an_error_with_the_keys(
    unet: UNet, file: Path, changes: dict[str, Tensor | None], keys: set[str]
) -> None:
    rewrite(file, changes)
    with pytest.raises(AdapterError) as caught:
        load_loras(file, {"lora_unet": unet})
    assert set(caught.value.keys) == keys
    assert min(keys) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_layers_may_have_ldms_names_as_sdxls_have(unet: UNet, tmp_path: Path) -> None:
    aliases = aliases_through(ldm_key_map(TINY), unet, "lora_unet")
    config = LoraConfig(rank=3, alpha=2.0, targets=("to_q", "conv1", "proj_in"))
    lora = learnt(unet, config)
    save_loras(tmp_path / "lora.safetensors", [lora], aliases=aliases)
    keys = load_file(tmp_path / "lora.safetensors").keys()
    assert "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_up.weight" in keys
    assert "lora_unet_input_blocks_1_0_in_layers_2.lora_up.weight" in keys
    assert not any("down_blocks" in key for key in keys)
    models = {"lora_unet": unet}
    loaded = load_loras(tmp_path / "lora.safetensors", models, aliases)["lora_unet"]
    assert loaded.keys() == lora.keys()
    with pytest.raises(AdapterError):
        load_loras(tmp_path / "lora.safetensors", models)
