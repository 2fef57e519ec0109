"""A closed vocabulary takes further words, and gives for the others what it gave."""

from pathlib import Path

import pytest
import torch

from sd_pipeline import load_model, save_model
from sd_textenc import (
    CLIPTextEncoder,
    TextEncoderError,
    Tokenizer,
    clip_tokenizer,
    train_tokenizer,
    vit_l14,
    with_words,
)
from sdcli.main import run
from tests.textenc.test_clip import small
from tests.tiny_model import tiny_parts

CAPTIONS = ["a cat on a mat", "two black dogs near a cup", "a red hat"]


@pytest.fixture(scope="module")
def encoder() -> CLIPTextEncoder:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(CAPTIONS, context_length=12)
    return CLIPTextEncoder(small(tokenizer), tokenizer).eval()


@pytest.fixture(scope="module")
def grown(encoder: CLIPTextEncoder) -> CLIPTextEncoder:
    return with_words(encoder, {"scarf": "hat", "ear": "cat", "up": "on"}).eval()


def test_new_words_are_one_token_and_known_ones_stay(
    encoder: CLIPTextEncoder, grown: CLIPTextEncoder
) -> None:
    old, new = encoder.tokenizer, grown.tokenizer
    for word in ("scarf", "ear", "up"):
        assert len(new.tokenize(word)) == 1
    for text in (*CAPTIONS, *(old.words or ())):
        assert new.tokenize(text) == old.tokenize(text)
    assert encoder.check("a scarf").unknown == ("scarf",)
    assert new.check("a scarf one ear up").unknown == ("one",)
    assert new.eos_token_id == old.eos_token_id


def test_other_prompts_give_the_same_states_to_the_bit(
    encoder: CLIPTextEncoder, grown: CLIPTextEncoder
) -> None:
    old, new = encoder.encode(CAPTIONS), grown.encode(CAPTIONS)
    assert torch.equal(old.hidden_states, new.hidden_states)
    assert torch.equal(old.pooled, new.pooled)


def test_a_new_word_is_like_the_one_it_began_as_and_not_the_same(grown: CLIPTextEncoder) -> None:
    rows = grown.body.embeddings.token_embedding.weight

    def row(word: str) -> torch.Tensor:
        return rows[grown.tokenizer.tokenize(word)[0]]

    middle = torch.stack([row(word) for word in ("cat", "mat", "dogs", "hat", "cup")]).mean(0)
    like = torch.cosine_similarity(row("scarf") - middle, row("hat") - middle, dim=0)
    other = torch.cosine_similarity(row("scarf") - middle, row("dogs") - middle, dim=0)
    assert 0.4 < like < 0.95
    assert other < like - 0.2


def test_the_seed_tells_the_words(encoder: CLIPTextEncoder, grown: CLIPTextEncoder) -> None:
    same, other = (with_words(encoder, {"scarf": "hat"}, seed=seed) for seed in (0, 1))
    first = grown.encode(["a scarf"]).hidden_states
    assert torch.equal(same.encode(["a scarf"]).hidden_states, first)
    assert not torch.equal(other.encode(["a scarf"]).hidden_states, first)


def test_the_grown_tokenizer_survives_its_files(grown: CLIPTextEncoder, tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    files = grown.tokenizer.files()
    again = Tokenizer.from_files(files)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    peer = CLIPTokenizer.from_pretrained(tmp_path)
    prompts = ["a red scarf on a cat", "one ear up", "scarfs"]
    assert again(prompts).tolist() == grown.tokenizer(prompts).tolist()
    padded = peer(prompts, padding="max_length", max_length=12)
    assert padded["input_ids"] == again(prompts).tolist()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"hat": "cat"}, "known already"),
        ({"scarf": "bow"}, "no word of the vocabulary"),
        ({"two scarves": "hat"}, "not one lower-case word"),
        ({"Scarf": "hat"}, "not one lower-case word"),
    ],
)
def test_what_cannot_be_added_is_named(
    encoder: CLIPTextEncoder, words: dict[str, str], said: str
) -> None:
    with pytest.raises(TextEncoderError, match=said):
        with_words(encoder, words)


def test_an_open_vocabulary_takes_none() -> None:
    with torch.device("meta"):
        encoder = CLIPTextEncoder(vit_l14(), clip_tokenizer())
    with pytest.raises(TextEncoderError, match="textual inversion"):
        with_words(encoder, {"scarf": "hat"})


def test_the_command_writes_a_model_that_knows_the_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    save_model(model, tiny_parts())
    target = tmp_path / "grown"
    assert run(["add-words", str(model), str(target), "scarf=mat"]) == 0
    told = load_model(target)
    assert isinstance(told.text_encoder, CLIPTextEncoder)
    assert not told.text_encoder.check("a scarf").unknown
    before = load_model(model).text_encoder.encode(["a cat on a mat"]).hidden_states
    after = told.text_encoder.encode(["a cat on a mat"]).hidden_states
    assert torch.equal(before, after)
    for arguments, said in (
        (["scarf=mat"], "--overwrite"),
        (["scarf", "--overwrite"], "WORD=KNOWN"),
        (["scarf=sash", "--overwrite"], "no word of the vocabulary"),
    ):
        capsys.readouterr()
        assert run(["add-words", str(model), str(target), *arguments]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
