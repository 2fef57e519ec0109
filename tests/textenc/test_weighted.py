"""Weighted and long prompts, encoded in chunks."""

from random import Random

import pytest
import torch
from torch import Tensor

from sd_textenc import (
    CLIPTextConfig,
    CLIPTextEncoder,
    DualTextEncoder,
    TextTower,
    clip_tokenizer,
    encode_weighted,
)
from sd_textenc.prompts import parse_emphasis

LONG = ", ".join(["a photo of a red fox in the snow"] * 12)  # 107 tokens and more
SIZES = {"vocab_size": 49408, "intermediate_size": 64, "num_layers": 2, "num_heads": 2}


def tower(
    width: int = 32, *, projection_dim: int | None = None, pad: str | None = None
) -> TextTower:
    torch.manual_seed(width)
    tokenizer = clip_tokenizer() if pad is None else clip_tokenizer(pad_token=pad)
    config = CLIPTextConfig(hidden_size=width, projection_dim=projection_dim, **SIZES)
    encoder = CLIPTextEncoder(config, tokenizer).eval().requires_grad_(False)
    body = encoder.model if projection_dim is None else encoder.model.text_model
    body.final_layer_norm.bias.fill_(0.3)  # a learnt tower's states have a mean
    return encoder


@pytest.fixture(scope="module")
def encoder() -> TextTower:
    return tower()


def states(encoder: TextTower | DualTextEncoder, *prompts: str) -> Tensor:
    return encode_weighted(encoder, [parse_emphasis(p) for p in prompts]).hidden_states


def test_a_short_prompt_without_weights_is_encoded_as_ever(encoder: TextTower) -> None:
    prompts = ["a cat on a mat", "", r"\(a\) dog"]
    ours = encode_weighted(encoder, [parse_emphasis(p) for p in prompts])
    plain = encoder.encode(["a cat on a mat", "", "(a) dog"])
    assert torch.equal(ours.hidden_states, plain.hidden_states)
    assert torch.equal(ours.pooled, plain.pooled)


def web_ui_chunks(ids: list[int], comma: int) -> list[list[int]]:
    """The web UI's loop over tokens, token by token, as its modules/sd_hijack_clip.py has it."""
    chunks: list[list[int]] = []
    chunk: list[int] = []
    last_comma = -1
    for token in ids:
        if token == comma:
            last_comma = len(chunk)
        elif len(chunk) == 75 and last_comma != -1 and len(chunk) - last_comma <= 20:
            moved = chunk[last_comma + 1 :]
            chunks.append(chunk[: last_comma + 1])
            chunk, last_comma = moved, -1
        if len(chunk) == 75:
            chunks.append(chunk)
            chunk, last_comma = [], -1
        chunk.append(token)
    return [*chunks, chunk]


@pytest.mark.parametrize("seed", range(20))
def test_a_long_prompt_is_cut_where_the_web_ui_cuts_it(encoder: TextTower, seed: int) -> None:
    random = Random(seed)
    every = random.choice([4, 15, 40, 90])
    words = ["fox" if random.randrange(every) else "fox," for _ in range(random.randrange(60, 250))]
    prompt = " ".join(words)
    ids, (comma,) = encoder.tokenizer.tokenize(prompt), encoder.tokenizer.tokenize(",")
    rows = torch.tensor([encoder.tokenizer.pack(chunk) for chunk in web_ui_chunks(ids, comma)])
    encoded = encode_weighted(encoder, [parse_emphasis(prompt)])
    pieces = encoder.encode_tokens(rows)
    torch.testing.assert_close(encoded.hidden_states[0], pieces.hidden_states.flatten(0, 1))
    torch.testing.assert_close(encoded.pooled, pieces.pooled[:1])


def test_a_short_prompt_beside_a_long_one_ends_in_an_empty_piece(encoder: TextTower) -> None:
    both = states(encoder, "a cat", LONG)
    alone = encoder.encode(["a cat", ""]).hidden_states
    torch.testing.assert_close(both[0], alone.flatten(0, 1))


def test_break_begins_a_new_piece(encoder: TextTower) -> None:
    pieces = encoder.encode(["a cat", "a dog"]).hidden_states
    torch.testing.assert_close(states(encoder, "a cat BREAK a dog")[0], pieces.flatten(0, 1))


def test_weights_multiply_the_states_of_their_tokens_and_keep_the_mean(encoder: TextTower) -> None:
    plain = encoder.encode(["a red cat"]).hidden_states
    weights = torch.ones(77)
    weights[2] = 1.5  # <start> a red cat
    expected = plain * weights[:, None]
    expected = expected * (plain.mean() / expected.mean())
    torch.testing.assert_close(states(encoder, "a (red:1.5) cat"), expected)


def test_a_weighted_prompt_changes_nothing_about_its_neighbours(encoder: TextTower) -> None:
    alone, beside = states(encoder, "a red cat"), states(encoder, "a red cat", "a (dog:2)")
    assert torch.equal(alone[0], beside[0])


def test_states_without_a_mean_are_multiplied_and_no_more() -> None:
    encoder = tower()
    encoder.model.final_layer_norm.bias.zero_()
    plain = encoder.encode(["a red cat"]).hidden_states
    weighed = states(encoder, "a (red:1.5) cat")
    torch.testing.assert_close(weighed[0, 2], 1.5 * plain[0, 2])
    torch.testing.assert_close(weighed[0, 3], plain[0, 3])


def test_a_weight_of_nought_is_finite(encoder: TextTower) -> None:
    assert states(encoder, "(a red cat:0)").isfinite().all()


def test_both_towers_of_sdxl_read_the_same_pieces() -> None:
    first, second = tower(32), tower(64, projection_dim=16, pad="!")
    dual = DualTextEncoder(first, second)
    encoded = encode_weighted(dual, [parse_emphasis(LONG), parse_emphasis("a (cat:1.2)")])
    assert encoded.hidden_states.shape == (2, 154, 96)
    assert encoded.pooled.shape == (2, 16)
    alone = states(first, LONG, "a (cat:1.2)")
    torch.testing.assert_close(encoded.hidden_states[..., :32], alone)
