"""Textual inversion in the real text towers: the joint that the pipeline makes."""

import pytest
import torch

from sd_adapters import TextualInversion
from sd_textenc import (
    CLIPTextConfig,
    CLIPTextEncoder,
    OpenCLIPTextConfig,
    OpenCLIPTextEncoder,
    TextTower,
    Tokenizer,
    train_tokenizer,
)

NUM_VECTORS = 2


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a cat on a mat", "two black dogs"], context_length=12)


def build(kind: str, tokenizer: Tokenizer, num_words: int) -> TextTower:
    options = {
        "vocab_size": num_words,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_layers": 2,
        "num_heads": 4,
        "max_positions": 12,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if kind == "clip":
        return CLIPTextEncoder(CLIPTextConfig(**options), tokenizer)
    return OpenCLIPTextEncoder(OpenCLIPTextConfig(**options, projection_dim=16), tokenizer)


@pytest.mark.parametrize("kind", ["clip", "open_clip"])
@torch.no_grad()
def test_tower_computes_as_with_a_larger_table_and_then_as_before(
    kind: str, tokenizer: Tokenizer
) -> None:
    num_words = tokenizer.vocab_size
    torch.manual_seed(0)
    larger = build(kind, tokenizer, num_words + NUM_VECTORS)
    tower = build(kind, tokenizer, num_words)
    state = larger.state_dict()
    (table,) = (key for key in state if key.endswith("token_embedding.weight"))
    vectors = state[table][num_words:]
    tower.load_state_dict(state | {table: state[table][:num_words]})
    words = tokenizer.tokenize("a cat on")
    ids = torch.tensor([tokenizer.pack([*words, num_words, num_words + 1, *words])])
    known = tokenizer(["two black dogs"])
    before = tower.encode_tokens(known)
    adapter = TextualInversion(vectors, first_id=num_words)
    adapter.inject(tower)
    found, expected = tower.encode_tokens(ids), larger.encode_tokens(ids)
    assert torch.allclose(found.hidden_states, expected.hidden_states, atol=1e-6)
    assert torch.allclose(found.pooled, expected.pooled, atol=1e-6)
    adapter.eject()
    assert torch.equal(tower.encode_tokens(known).hidden_states, before.hidden_states)
