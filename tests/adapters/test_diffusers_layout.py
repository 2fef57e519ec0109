"""LoRA files of diffusers' and PEFT's layouts."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sd_adapters import (
    AdapterError,
    Lora,
    LoraConfig,
    from_diffusers,
    is_diffusers,
    kohya_keys,
    load_loras,
    save_diffusers_loras,
    save_loras,
)
from sd_unet import UNet, UNetConfig

TINY = UNetConfig(
    sample_size=8,
    block_out_channels=(32, 64),
    attention_levels=(True, False),
    layers_per_block=1,
    cross_attention_dim=24,
    num_heads=4,
)
ATTN = "mid_block.attentions.0.transformer_blocks.0.attn1"
FLAT = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1"
DOWN, UP = torch.randn(4, 64), torch.randn(64, 4)


class Text(nn.Module):
    """Stands for a text encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(6, 6)
        self.out_proj = nn.Linear(6, 6)


@pytest.fixture(scope="module")
def unet() -> UNet:
    return UNet(TINY)


def learnt(model: nn.Module, config: LoraConfig, prefix: str = "lora_unet") -> Lora:
    lora = Lora.create(model, config, prefix)
    with torch.no_grad():
        for parameter in lora.parameters():
            parameter.normal_()
    return lora


def load(tmp_path: Path, tensors: dict[str, Tensor], unet: nn.Module, **metadata: str) -> Lora:
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(tensors, path, metadata)
    return load_loras(path, {"lora_unet": unet})["lora_unet"]


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (f"unet.{ATTN}.to_q.lora_A.weight", f"unet.{ATTN}.to_q.lora_B.weight"),
        (f"{ATTN}.to_q.lora_A.weight", f"{ATTN}.to_q.lora_B.weight"),
        (f"{ATTN}.to_q.lora_A.default.weight", f"{ATTN}.to_q.lora_B.default.weight"),
        (
            f"base_model.model.{ATTN}.to_q.lora_A.weight",
            f"base_model.model.{ATTN}.to_q.lora_B.weight",
        ),
        (f"unet.{ATTN}.to_q.lora.down.weight", f"unet.{ATTN}.to_q.lora.up.weight"),
        (
            f"unet.{ATTN}.processor.to_q_lora.down.weight",
            f"unet.{ATTN}.processor.to_q_lora.up.weight",
        ),
        (f"{ATTN}.processor.to_q_lora.down.weight", f"{ATTN}.processor.to_q_lora.up.weight"),
        (
            f"unet.{ATTN}.processor.to_out_lora.down.weight",
            f"unet.{ATTN}.processor.to_out_lora.up.weight",
        ),
    ],
)
def test_every_age_of_keys_is_read(tmp_path: Path, unet: UNet, down: str, up: str) -> None:
    lora = load(tmp_path, {down: DOWN, up: UP}, unet)
    name = f"{FLAT}_to_out_0" if "to_out" in down else f"{FLAT}_to_q"
    state = lora.state_dict()
    assert set(lora) == {name}
    assert torch.equal(state[f"{name}.lora_down.weight"], DOWN)
    assert torch.equal(state[f"{name}.lora_up.weight"], UP)
    assert state[f"{name}.alpha"] == 4.0


@pytest.mark.parametrize(
    ("metadata", "alpha"),
    [
        ({"unet.lora_alpha": 2, "unet.r": 4}, 2.0),
        ({"lora_alpha": 2}, 2.0),
        ({"unet.lora_alpha": 2, "unet.alpha_pattern": {f"{ATTN}.to_q": 8}}, 8.0),
        ({"unet.lora_alpha": 2, "unet.alpha_pattern": {"attn2.to_q": 8}}, 2.0),
        ({"unet.lora_alpha": 2, "unet.use_rslora": True}, 4.0),
        ({"text_encoder.lora_alpha": 2}, 4.0),
    ],
)
def test_alpha_is_what_the_header_says(
    tmp_path: Path, unet: UNet, metadata: dict[str, object], alpha: float
) -> None:
    tensors = {f"unet.{ATTN}.to_q.lora_A.weight": DOWN, f"unet.{ATTN}.to_q.lora_B.weight": UP}
    lora = load(tmp_path, tensors, unet, lora_adapter_metadata=json.dumps(metadata))
    assert lora.state_dict()[f"{FLAT}_to_q.alpha"] == alpha


def test_alpha_as_a_key_and_dora_are_read(tmp_path: Path, unet: UNet) -> None:
    tensors = {
        f"unet.{ATTN}.to_q.lora_A.weight": DOWN,
        f"unet.{ATTN}.to_q.lora_B.weight": UP,
        f"unet.{ATTN}.to_q.alpha": torch.tensor(1.0),
        f"unet.{ATTN}.to_q.lora_magnitude_vector": torch.rand(64),
        "unet.conv_in.lora_A.weight": torch.randn(2, 4, 3, 3),
        "unet.conv_in.lora_B.weight": torch.randn(32, 2, 1, 1),
        "unet.conv_in.lora_magnitude_vector.weight": torch.rand(1, 32, 1, 1),
    }
    state = load(tmp_path, tensors, unet).state_dict()
    assert state[f"{FLAT}_to_q.alpha"] == 1.0
    assert state[f"{FLAT}_to_q.dora_scale"].shape == (64, 1)
    assert state["lora_unet_conv_in.dora_scale"].shape == (32, 1, 1, 1)


def test_pefts_own_files_have_their_config_beside(tmp_path: Path, unet: UNet) -> None:
    w1, w2 = torch.randn(8, 8), torch.randn(8, 8)
    loha = {
        "hada_w1_a": torch.randn(64, 2),
        "hada_w1_b": torch.randn(2, 64),
        "hada_w2_a": torch.randn(64, 2),
        "hada_w2_b": torch.randn(2, 64),
    }
    tensors = {
        f"base_model.model.{ATTN}.to_q.lora_A.weight": DOWN,
        f"base_model.model.{ATTN}.to_q.lora_B.weight": UP,
        f"base_model.model.{ATTN}.to_k.lokr_w1": w1,
        f"base_model.model.{ATTN}.to_k.lokr_w2": w2,
        **{f"base_model.model.{ATTN}.to_v.{part}": tensor for part, tensor in loha.items()},
    }
    path = tmp_path / "adapter_model.safetensors"
    save_file(tensors, path)
    config = {"r": 4, "lora_alpha": 2, "alpha_pattern": {"to_v": 6}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    lora = load_loras(path, {"lora_unet": unet})["lora_unet"]
    additions = {name: (layer.product() * layer.scale).detach() for name, layer in lora.items()}
    assert torch.allclose(additions[f"{FLAT}_to_q"], UP @ DOWN / 2, atol=1e-5)
    assert torch.allclose(additions[f"{FLAT}_to_k"], torch.kron(w1, w2) / 2, atol=1e-5)
    expected = (loha["hada_w1_a"] @ loha["hada_w1_b"]) * (loha["hada_w2_a"] @ loha["hada_w2_b"])
    assert torch.allclose(additions[f"{FLAT}_to_v"], 3 * expected, atol=1e-4)
    # Beside a file of another name it is another's.
    path.rename(tmp_path / "other.safetensors")
    lora = load_loras(tmp_path / "other.safetensors", {"lora_unet": unet})["lora_unet"]
    assert lora.state_dict()[f"{FLAT}_to_q.alpha"] == 4.0


def test_text_encoders_of_every_age_are_read(tmp_path: Path, unet: UNet) -> None:
    text = Text()
    tensors = {
        "text_encoder.text_model.q_proj.lora_linear_layer.down.weight": torch.ones(2, 6),
        "text_encoder.text_model.q_proj.lora_linear_layer.up.weight": torch.ones(6, 2),
        "text_encoder.text_model.to_out_lora.down.weight": torch.ones(2, 6),
        "text_encoder.text_model.to_out_lora.up.weight": torch.ones(6, 2),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    for prefix in ("lora_te_text_model", "lora_te1_text_model"):
        models = {"lora_unet": unet, prefix: text}
        loaded = load_loras(tmp_path / "a.safetensors", models)
        assert set(loaded[prefix]) == {f"{prefix}_q_proj", f"{prefix}_out_proj"}
    tensors = {key.replace("encoder.", "encoder_2."): t for key, t in tensors.items()}
    save_file(tensors, tmp_path / "a.safetensors")
    assert "lora_te2_text_model" in load_loras(
        tmp_path / "a.safetensors", {"lora_te1_text_model": text, "lora_te2_text_model": text}
    )


@pytest.mark.parametrize("dora", [False, True])
@torch.no_grad()
def test_written_file_has_pefts_keys_and_adds_the_same(
    tmp_path: Path, unet: UNet, dora: bool
) -> None:
    text = Text()
    config = LoraConfig(
        rank=2, alpha=3.0, targets=("to_q", "conv1", "downsamplers.0.conv"), dora=dora, tucker=True
    )
    models = {"lora_unet": unet, "lora_te_text_model": text}
    loras = [
        learnt(unet, config),
        learnt(text, LoraConfig(rank=2, alpha=1.0, targets=("q_proj",)), "lora_te_text_model"),
    ]
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_diffusers_loras(path, loras, models)
    keys = load_file(path)
    assert is_diffusers(keys)
    assert keys["text_encoder.text_model.q_proj.lora_A.weight"].shape == (2, 6)
    assert keys[f"unet.{ATTN}.to_q.lora_B.weight"].shape == (64, 2)
    assert keys["unet.mid_block.resnets.0.conv1.lora_A.weight"].shape == (2, 64, 3, 3)
    if dora:
        assert keys[f"unet.{ATTN}.to_q.lora_magnitude_vector"].shape == (64,)
        assert keys["unet.mid_block.resnets.0.conv1.lora_magnitude_vector"].shape == (1, 64, 1, 1)
    loaded = load_loras(path, models)
    for lora in loras:
        again = loaded[lora.prefix]
        for name, layer in lora.items():
            assert torch.allclose(
                again[name].product() * again[name].scale, layer.product() * layer.scale, atol=1e-4
            )
            if layer.dora_scale is not None:
                assert torch.equal(again[name].dora_scale, layer.dora_scale)


def test_kinds_without_a_place_are_an_error_with_their_keys(tmp_path: Path, unet: UNet) -> None:
    lora = learnt(unet, LoraConfig(rank=2, targets=("to_q",), kind="loha"))
    with pytest.raises(AdapterError, match="low-rank") as caught:
        save_diffusers_loras(tmp_path / "a.safetensors", [lora], {"lora_unet": unet})
    assert any("hada_w1_a" in key for key in caught.value.keys)
    with pytest.raises(AdapterError, match="no name for the part 'vae'"):
        save_diffusers_loras(tmp_path / "a.safetensors", [lora], {"vae": unet})


def test_unknown_keys_are_an_error_with_the_list(tmp_path: Path, unet: UNet) -> None:
    tensors = {
        f"unet.{ATTN}.to_q.lora_A.weight": DOWN,
        f"unet.{ATTN}.to_q.lora_B.weight": UP,
        f"unet.{ATTN}.to_q.lora_B.bias": torch.ones(64),
        "unet.mystery": torch.ones(1),
    }
    with pytest.raises(AdapterError) as caught:
        load(tmp_path, tensors, unet)
    assert set(caught.value.keys) == {f"unet.{ATTN}.to_q.lora_B.bias", "unet.mystery"}
    tensors = {
        "unet.no_such.lora_A.weight": DOWN.clone(),
        "unet.no_such.lora_B.weight": UP.clone(),
        f"unet.{ATTN}.to_q.lora_A.weight": torch.ones(4, 63),
        f"unet.{ATTN}.to_q.lora_B.weight": UP,
    }
    with pytest.raises(AdapterError) as caught:
        load(tmp_path, tensors, unet)
    assert set(caught.value.keys) == {"unet.no_such.lora_A.weight", "unet.no_such.lora_B.weight"}
    tensors = {key: tensor for key, tensor in tensors.items() if "no_such" not in key}
    with pytest.raises(AdapterError) as caught:
        load(tmp_path, tensors, unet)
    assert set(caught.value.keys) == set(tensors)
    twice = {f"unet.{ATTN}.to_q.lora_A.weight": DOWN, f"{ATTN}.to_q.lora.down.weight": DOWN}
    with pytest.raises(AdapterError):
        from_diffusers(twice, {})


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ("{", "not JSON"),
        ("[]", "no object"),
        ('{"unet.alpha_pattern": {".*to_q$": 3}}', "no plain path"),
        ('{"unet.alpha_pattern": 3}', "no object"),
        ('{"lora_alpha": "many"}', "no number"),
    ],
)
def test_header_that_is_not_understood_is_one_line(header: str, match: str) -> None:
    with pytest.raises(AdapterError, match=match):
        from_diffusers({f"{ATTN}.to_q.lora_A.weight": DOWN}, {"lora_adapter_metadata": header})


def test_kohyas_layout_is_not_taken_for_it(tmp_path: Path, unet: UNet) -> None:
    save_loras(tmp_path / "a.safetensors", [learnt(unet, LoraConfig(rank=2))])
    assert not is_diffusers(load_file(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("beginning", ["text_encoder.", "text_encoder_2.", "base_model.model."])
def test_text_encoders_of_transformers_5_have_one_name_less(beginning: str) -> None:
    layer = "encoder.layers.1.self_attn.q_proj.lora_A.weight"
    wanted = kohya_keys([f"{beginning}text_model.{layer}"])
    found = kohya_keys([f"{beginning}{layer}"])
    assert list(found.values()) == list(wanted.values())
    assert "text_model_encoder_layers_1" in found[f"{beginning}{layer}"]
