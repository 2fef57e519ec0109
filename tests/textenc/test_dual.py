import pytest
import torch

from sd_textenc import DualTextEncoder, TextEncoder, TextEncoderError, Tokenizer, train_tokenizer
from tests.textenc.towers import clip_config, open_clip_config, tower

CAPTIONS = ["a cat on a mat", "two black dogs"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(CAPTIONS, context_length=8)


@pytest.fixture
def dual(tokenizer: Tokenizer) -> DualTextEncoder:
    return DualTextEncoder(
        tower(clip_config(tokenizer), tokenizer, penultimate=True),
        tower(open_clip_config(tokenizer, 24), tokenizer, penultimate=True),
    )


def test_states_stand_side_by_side_and_the_second_gives_the_pooled_vector(
    dual: DualTextEncoder,
) -> None:
    prompts = ["a cat", "two black dogs"]
    conditioning = dual.encode(prompts)
    first, second = dual.first.encode(prompts), dual.second.encode(prompts)
    assert isinstance(dual, TextEncoder)
    assert torch.equal(conditioning.hidden_states[..., :32], first.hidden_states)
    assert torch.equal(conditioning.hidden_states[..., 32:], second.hidden_states)
    assert torch.equal(conditioning.pooled, second.pooled)


def test_second_prompts_reach_the_second_tower_alone(dual: DualTextEncoder) -> None:
    plain, mixed = dual.encode(["a cat"]), dual.encode(["a cat"], ["two dogs"])
    assert torch.equal(mixed.hidden_states[..., :32], plain.hidden_states[..., :32])
    expected = dual.second.encode(["two dogs"])
    assert torch.equal(mixed.hidden_states[..., 32:], expected.hidden_states)
    assert torch.equal(mixed.pooled, expected.pooled)
    with pytest.raises(TextEncoderError, match="1 prompts and 2 second prompts"):
        dual.encode(["a cat"], ["two dogs", "a cat"])


def test_ids_can_be_made_first_and_encoded_later(dual: DualTextEncoder) -> None:
    token_ids = dual.tokenize(["a cat"], ["two dogs"])
    a, b = dual(*token_ids), dual.encode(["a cat"], ["two dogs"])
    assert torch.equal(a.hidden_states, b.hidden_states)


def test_clip_skip_goes_to_both_towers_or_to_neither(dual: DualTextEncoder) -> None:
    dual.clip_skip = 1
    assert (dual.first.clip_skip, dual.second.clip_skip, dual.clip_skip) == (1, 1, 1)
    # The first has three layers, the second four.
    with pytest.raises(TextEncoderError, match="from 0 to 1"):
        dual.clip_skip = 2
    turned = DualTextEncoder(
        tower(open_clip_config(dual.first.tokenizer), dual.first.tokenizer, penultimate=True),
        tower(clip_config(dual.first.tokenizer, 24), dual.first.tokenizer, penultimate=True),
    )
    with pytest.raises(TextEncoderError, match="from 0 to 1"):
        turned.clip_skip = 2
    assert turned.first.clip_skip == 0


def test_whether_both_towers_have_so_many_layers_is_asked_without_skipping_any(
    dual: DualTextEncoder,
) -> None:
    dual.check_clip_skip(1)
    with pytest.raises(TextEncoderError, match="clip_skip is 2; it must be from 0 to 1"):
        dual.check_clip_skip(2)
    assert dual.clip_skip == 0


def test_a_prompt_is_checked_against_both_vocabularies() -> None:
    one = train_tokenizer(CAPTIONS, context_length=8)
    two = train_tokenizer([*CAPTIONS, "zebra"], context_length=8)
    dual = DualTextEncoder(tower(clip_config(one), one), tower(open_clip_config(two, 24), two))
    report = dual.check("a zebra on a mat, two cats")
    assert report.unknown == ("zebra", ",", "cats")
    assert report.dropped == one.check("a zebra on a mat, two cats").dropped
    assert report.num_tokens == one.check("a zebra on a mat, two cats").num_tokens
    assert dual.check("a cat").dropped == ""


def test_towers_that_cannot_stand_side_by_side_are_refused(tokenizer: Tokenizer) -> None:
    longer = train_tokenizer(CAPTIONS, context_length=9)
    first = tower(clip_config(tokenizer), tokenizer)
    with pytest.raises(TextEncoderError, match="contexts are 8 and 9"):
        DualTextEncoder(first, tower(open_clip_config(longer, 24), longer))
    with pytest.raises(TextEncoderError, match="projection_dim is None"):
        DualTextEncoder(first, tower(open_clip_config(tokenizer), tokenizer))


def test_zeroed_conditioning_has_the_same_shapes_and_precision(dual: DualTextEncoder) -> None:
    conditioning = dual.to(torch.bfloat16).encode(["a cat"])
    zeroed = conditioning.zeroed()
    assert zeroed.hidden_states.shape == conditioning.hidden_states.shape
    assert zeroed.hidden_states.dtype == torch.bfloat16
    assert not zeroed.hidden_states.any()
    assert zeroed.pooled is not None
    assert not zeroed.pooled.any()
    assert dual.first.encode(["a cat"]).zeroed().pooled is not None
