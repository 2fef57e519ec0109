"""Names in prompts: of learnt vectors, which get ids of their own, and of adapters, which go."""

from collections.abc import Sequence

import pytest
import torch

from sd_textenc import TextEncoderError, Tokenizer, encode_weighted, train_tokenizer
from sd_textenc.prompts import NetworkTag, parse_emphasis, parse_networks
from tests.textenc.towers import clip_config, tower


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a cat on a mat, two black dogs"], context_length=10)


def ids(tokenizer: Tokenizer, number: int) -> list[int]:
    return list(range(tokenizer.vocab_size, tokenizer.vocab_size + number))


def test_a_name_becomes_its_ids_and_the_rest_what_it_was(tokenizer: Tokenizer) -> None:
    named = tokenizer.with_names({"<rex>": ids(tokenizer, 2), "momo": [5000]})
    assert named.tokenize("a <REX> on a mat") == [
        *tokenizer.tokenize("a"), *ids(tokenizer, 2), *tokenizer.tokenize("on a mat"),
    ]  # fmt: skip
    assert named.tokenize("a<rex>,Momo") == [
        *tokenizer.tokenize("a"), *ids(tokenizer, 2), *tokenizer.tokenize(","), 5000,
    ]  # fmt: skip
    assert named.tokenize("momos") == tokenizer.tokenize("momos")
    assert tokenizer.tokenize("momo") != [5000], "the first tokenizer is what it was"
    assert named.tokenize("") == []


def test_the_longest_name_counts(tokenizer: Tokenizer) -> None:
    named = tokenizer.with_names({"my dog": [2000]}).with_names({"my dog rex": [2001]})
    assert named.tokenize("my dog rex") == [2001]
    assert named.tokenize("my dog") == [2000]


def test_a_name_is_no_unknown_word_and_counts_as_its_tokens(tokenizer: Tokenizer) -> None:
    named = tokenizer.with_names({"rex": ids(tokenizer, 3)})
    report = named.check("a rex on a zebra")
    assert (report.unknown, report.num_tokens) == (("zebra",), 3 + 3 + len(named.tokenize("zebra")))
    assert tokenizer.check("a rex").unknown == ("rex",)
    assert named.check("a cat on a mat, two rex dogs").dropped == "rex dogs"


@pytest.mark.parametrize(
    "names", [{"": [4000]}, {"rex": []}, {"rex": [0]}, {"REX": [4000], "rex": [4001]}]
)
def test_names_that_cannot_be_are_refused(
    tokenizer: Tokenizer, names: dict[str, Sequence[int]]
) -> None:
    with pytest.raises(TextEncoderError):
        tokenizer.with_names(names)


def test_a_chunk_ends_before_a_name_that_it_has_no_room_for(tokenizer: Tokenizer) -> None:
    config = clip_config(tokenizer)
    encoder = tower(config, tokenizer)
    encoder.tokenizer = tokenizer.with_names({"rex": ids(tokenizer, 3)})
    packed: list[torch.Tensor] = []
    encode = encoder.encode_tokens

    def seen(token_ids: torch.Tensor) -> object:
        packed.append(token_ids)
        # The tower has no rows for these ids: what it would say is no matter here.
        return encode(token_ids.clamp(max=tokenizer.vocab_size - 1))

    encoder.encode_tokens = seen
    encode_weighted(encoder, [parse_emphasis("a cat, on a mat two rex")])
    words = [row[1:].tolist() for row in packed[0]]
    room = tokenizer.context_length - 2
    before = tokenizer.tokenize("a cat, on a mat two")
    assert len(before) < room < len(before) + 3
    assert words[0][: len(before)] == before
    assert words[0][len(before)] == tokenizer.eos_token_id
    assert words[1][:3] == ids(tokenizer, 3)


@pytest.mark.parametrize(
    ("tag", "wanted"),
    [
        ("<lora:a>", NetworkTag(kind="lora", name="a")),
        ("<lyco:a:0.5>", NetworkTag(kind="lora", name="a", strength=0.5, text_strength=0.5)),
        ("<lora:a b:0.5:-1>", NetworkTag(kind="lora", name="a b", strength=-1, text_strength=0.5)),
        ("<lora:a:unet=2>", NetworkTag(kind="lora", name="a", strength=2, text_strength=2)),
        ("<lora:a:te=0:unet=2>", NetworkTag(kind="lora", name="a", strength=2, text_strength=0)),
        ("<lora:a:1:mid_block=.5>", NetworkTag(kind="lora", name="a", blocks={"mid_block": 0.5})),
        (
            "<hypernet:h:.6>",
            NetworkTag(kind="hypernetwork", name="h", strength=0.6, text_strength=0.6),
        ),
    ],
)
def test_tags_are_taken_out_of_a_prompt(tag: str, wanted: NetworkTag) -> None:
    assert parse_networks(f"a cat {tag}on a mat") == ("a cat on a mat", (wanted,))


def test_what_is_no_tag_stays() -> None:
    for prompt in ("a <b:c> d", "1 < 2 > 1", "<lora>", "<lora:>"):
        assert parse_networks(prompt) == (prompt, ())


@pytest.mark.parametrize(
    "tag", ["<lora:a:b>", "<lora:a:1:2:3>", "<hypernet:a:1:2>", "<lora:a:nan>", "<lora:a:101>"]
)
def test_tags_that_make_no_sense_say_why(tag: str) -> None:
    with pytest.raises(TextEncoderError, match=r"<.*>"):
        parse_networks(tag)
