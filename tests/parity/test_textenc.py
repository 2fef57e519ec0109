"""CLIPTextEncoder against a plain forward of transformers' CLIPTextModel: 1e-5 in fp32."""

import json
from pathlib import Path

import pytest
import torch

from sd_checkpoint import save_safetensors
from sd_textenc import CLIPTextConfig, CLIPTextEncoder, Tokenizer, train_tokenizer

PROMPTS = ["a cat on a mat", "two black dogs, night sky", "", "unheard-of words"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a cat on a mat", "two black dogs, night sky"], context_length=24)


def build(
    tokenizer: Tokenizer, clip_skip: int = 0, projection: int | None = None
) -> CLIPTextEncoder:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_layers=4,
        num_heads=4,
        max_positions=24,
        projection_dim=projection,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return CLIPTextEncoder(config, tokenizer, clip_skip).eval()


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


def test_the_default_attention_is_causal_sdpa_and_equals_a_written_out_softmax(
    tokenizer: Tokenizer,
) -> None:
    """Attention(Q, K, V) with a causal mask, written out, on the first layer's weights."""
    ours = build(tokenizer)
    assert ours.model.config._attn_implementation == "sdpa"
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
    assert (attention(x, None, is_causal=True)[0] - expected).abs().max() < 1e-5
