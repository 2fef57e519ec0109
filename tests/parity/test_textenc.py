"""CLIPTextEncoder against a plain forward of transformers' CLIPTextModel: 1e-5 in fp32."""

import json
from pathlib import Path

import pytest
import torch

from sd_checkpoint import load_into, save_safetensors
from sd_textenc import CLIPTextConfig, CLIPTextEncoder, Tokenizer, train_tokenizer
from sd_textenc.clip import Library

PROMPTS = ["a cat on a mat", "two black dogs, night sky", "", "unheard-of words"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a cat on a mat", "two black dogs, night sky"], context_length=24)


def build(
    tokenizer: Tokenizer,
    clip_skip: int = 0,
    projection: int | None = None,
    *,
    hidden_act: str = "quick_gelu",
    library: Library = "own",
) -> CLIPTextEncoder:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_layers=4,
        num_heads=4,
        max_positions=24,
        hidden_act=hidden_act,
        projection_dim=projection,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return CLIPTextEncoder(config, tokenizer, clip_skip, library=library).eval()


def save(encoder: CLIPTextEncoder, folder: Path) -> Path:
    save_safetensors(folder / "model.safetensors", encoder.file_state_dict(), {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(encoder.config.to_diffusers()))
    return folder


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("clip_skip", [0, 1, 2, 3])
def test_states_and_pooled_equal_transformers_opened_on_our_folder(
    tokenizer: Tokenizer, tmp_path: Path, clip_skip: int, attention: str
) -> None:
    from transformers import CLIPTextModel

    ours = build(tokenizer, clip_skip)
    peer, info = CLIPTextModel.from_pretrained(
        save(ours, tmp_path), attn_implementation=attention, output_loading_info=True
    )
    assert not any(info.values())
    with torch.no_grad():
        conditioning = ours.encode(PROMPTS)
        outputs = peer.eval()(tokenizer(PROMPTS), output_hidden_states=True)
        # What diffusers does: hidden_states[-(clip_skip + 1)], then the final layer norm.
        expected = peer.final_layer_norm(outputs.hidden_states[-(clip_skip + 1)])
    assert (conditioning.hidden_states - expected).abs().max() < 1e-5
    assert conditioning.pooled is not None
    assert (conditioning.pooled - outputs.pooler_output).abs().max() < 1e-5


def test_the_projected_vector_equals_transformers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import CLIPTextModelWithProjection

    ours = build(tokenizer, projection=16)
    peer = CLIPTextModelWithProjection.from_pretrained(save(ours, tmp_path)).eval()
    with torch.no_grad():
        conditioning = ours.encode(PROMPTS)
        outputs = peer(tokenizer(PROMPTS))
    assert (conditioning.hidden_states - outputs.last_hidden_state).abs().max() < 1e-5
    assert conditioning.pooled is not None
    assert (conditioning.pooled - outputs.text_embeds).abs().max() < 1e-5


@pytest.mark.parametrize("hidden_act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("clip_skip", [0, 2])
@pytest.mark.parametrize("projection", [None, 16])
@torch.no_grad()
def test_our_layers_and_transformers_take_the_same_weights_and_give_equal_numbers(
    tokenizer: Tokenizer, projection: int | None, clip_skip: int, hidden_act: str
) -> None:
    ours = build(tokenizer, clip_skip, projection, hidden_act=hidden_act)
    peer = build(tokenizer, clip_skip, projection, hidden_act=hidden_act, library="transformers")
    for parameter in ours.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.02)  # biases and norms, too
    assert type(peer.body).__module__.startswith("transformers")
    assert type(ours.body).__module__ == "sd_textenc.clip_layers"
    assert ours.model.state_dict().keys() == peer.model.state_dict().keys()
    load_into(peer.model, peer.model_state_dict(ours.file_state_dict()), what="test")
    a, b = ours.encode(PROMPTS), peer.encode(PROMPTS)
    assert (a.hidden_states - b.hidden_states).abs().max() < 1e-5
    assert a.pooled is not None
    assert b.pooled is not None
    assert (a.pooled - b.pooled).abs().max() < 1e-5


@torch.no_grad()
def test_new_weights_are_as_large_as_transformers_draws_them(tokenizer: Tokenizer) -> None:
    ours, peer = (build(tokenizer, projection=16, library=name) for name in ("own", "transformers"))
    theirs = dict(peer.model.named_parameters())
    for name, parameter in ours.model.named_parameters():
        if parameter.ndim == 2:
            assert float(parameter.std() / theirs[name].std()) == pytest.approx(1, abs=0.1), name
        else:
            assert torch.equal(parameter, theirs[name]), name


def test_gradients_equal_transformers(tokenizer: Tokenizer) -> None:
    ours, peer = (build(tokenizer, library=name) for name in ("own", "transformers"))
    load_into(peer.model, peer.model_state_dict(ours.file_state_dict()), what="test")
    wanted = torch.randn(len(PROMPTS), 24, 64)
    for encoder in (ours, peer):
        loss = (encoder.encode(PROMPTS).hidden_states - wanted).square().mean()
        torch.autograd.backward(loss)
    theirs = dict(peer.model.named_parameters())
    for name, parameter in ours.model.named_parameters():
        assert parameter.grad is not None
        assert (parameter.grad - theirs[name].grad).abs().max() < 1e-6, name


def test_attention_is_causal_and_equals_a_written_out_softmax(
    tokenizer: Tokenizer,
) -> None:
    """Attention(Q, K, V) with a causal mask, written out, on the first layer's weights."""
    ours = build(tokenizer)
    attention = ours.model.encoder.layers[0].self_attn
    x = torch.randn(2, 24, 64)
    q, k, v = (
        projection(x).unflatten(-1, (4, 16)).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    scores = (q @ k.transpose(-1, -2) / 4).masked_fill(
        torch.ones(24, 24).triu(1).bool(), float("-inf")
    )
    expected = attention.out_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    assert (attention(x) - expected).abs().max() < 1e-5
