import json
import subprocess
import sys

import pytest
import torch

from sd_textenc import TextEncoderError, Tokenizer, clip_tokenizer, train_tokenizer

CAPTIONS = (
    "a cat on a mat",
    "two black cats on a red mat, night sky",
    "the dog's ball",
    "a café by 3 trees",
)


@pytest.fixture(scope="module")
def clip() -> Tokenizer:
    return clip_tokenizer()


@pytest.fixture(scope="module")
def closed() -> Tokenizer:
    return train_tokenizer(CAPTIONS)


def test_importing_the_package_imports_neither_transformers_nor_open_clip() -> None:
    code = (
        "import sys, sd_textenc; sd_textenc.clip_tokenizer()(['a cat']); "
        "print([n for n in ('transformers', 'open_clip', 'torchvision') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_clip_table_has_the_official_ids(clip: Tokenizer) -> None:
    assert clip.vocab_size == 49408
    assert len(clip.merges) == 48894
    assert (clip.bos_token_id, clip.eos_token_id, clip.pad_token_id) == (49406, 49407, 49407)
    # The ids every SD 1.x user has seen for this prompt.
    assert clip(["a photo of a cat"])[0, :7].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_ids_are_padded_to_the_context_with_the_end_token(clip: Tokenizer) -> None:
    ids = clip(["a cat", ""])
    assert ids.shape == (2, 77)
    assert ids.dtype == torch.long
    assert set(ids[0, 3:].tolist()) == {49407}
    assert ids[1].tolist() == [49406] + [49407] * 76


def test_another_pad_token_fills_the_context(clip: Tokenizer) -> None:
    sd2 = clip_tokenizer("!")
    assert sd2.vocab == clip.vocab
    assert sd2(["a cat"])[0, :6].tolist() == [49406, 320, 2368, 49407, 0, 0]


def test_one_string_in_place_of_a_list_is_an_error(clip: Tokenizer) -> None:
    with pytest.raises(TextEncoderError, match="pass a list"):
        clip("a cat")


def test_a_prompt_that_fits_drops_nothing(clip: Tokenizer) -> None:
    report = clip.check(" ".join(["cat"] * 75))
    assert report.num_tokens == 75
    assert report.dropped == ""


def test_a_long_prompt_reports_the_text_that_is_dropped_as_it_was_written(clip: Tokenizer) -> None:
    prompt = " ".join(["cat"] * 75) + ",  A Red   Über-Mat"
    report = clip.check(prompt)
    assert report.dropped == ",  A Red   Über-Mat"
    assert report.num_tokens > 75
    assert torch.equal(clip([prompt]), clip([" ".join(["cat"] * 75)]))


def test_the_dropped_text_is_right_behind_accents_and_emoji(clip: Tokenizer) -> None:
    prompt = "e\u0301te\u0301 🐱 " * 40 + "the end"
    report = clip.check(prompt)
    kept = prompt[: prompt.rindex(report.dropped)]
    assert report.dropped.endswith("the end")
    assert clip.check(kept).num_tokens == 75


def test_an_open_vocabulary_knows_every_word(clip: Tokenizer) -> None:
    assert not clip.closed
    assert clip.check("qwrtzpsd 🐱").unknown == ()


def test_every_word_of_the_captions_is_one_token(closed: Tokenizer) -> None:
    assert closed.closed
    assert closed.check("two black cats on a red mat, night sky").num_tokens == 10
    assert closed.check("A CAFÉ").num_tokens == 2
    assert closed.check("dog's").num_tokens == 2
    for word in ("cat", "cats", "mat", "night", "café", "'s", ",", "3"):
        ids = closed([word])[0]
        assert ids[2] == closed.eos_token_id
        assert ids[1] < closed.bos_token_id


def test_different_words_get_different_ids(closed: Tokenizer) -> None:
    assert closed.words is not None
    ids = {int(closed([word])[0, 1]) for word in closed.words}
    assert len(ids) == len(closed.words)


def test_unknown_words_become_bytes_and_are_named_once_in_order(closed: Tokenizer) -> None:
    prompt = "a Zebra on a mat, zebra & 5 über"
    assert closed.check(prompt).unknown == ("zebra", "&", "5", "über")
    # "zebr" ends like no word of the captions, so it is four bytes.
    assert closed.check("zebr").num_tokens == 4
    assert closed.check("🐱").num_tokens == 4


def test_the_captions_order_and_repetition_do_not_change_the_tokenizer(closed: Tokenizer) -> None:
    again = train_tokenizer([*reversed(CAPTIONS), *CAPTIONS])
    assert again.vocab == closed.vocab
    assert again.merges == closed.merges


def test_special_tokens_come_last_as_transformers_pooling_wants(closed: Tokenizer) -> None:
    assert closed.bos_token_id == closed.vocab_size - 2
    assert closed.eos_token_id == closed.vocab_size - 1


def test_a_tokenizer_comes_back_from_its_files(closed: Tokenizer) -> None:
    again = Tokenizer.from_files(closed.files())
    assert again.context_length == 32
    assert again.words == closed.words
    prompts = ["a cat on a mat", "a Zebra, 🐱"]
    assert torch.equal(again(prompts), closed(prompts))
    assert again.check(prompts[1]) == closed.check(prompts[1])


def test_the_files_of_others_need_no_more_than_vocab_and_merges(clip: Tokenizer) -> None:
    files = {name: clip.files()[name] for name in ("vocab.json", "merges.txt")}
    again = Tokenizer.from_files(files)
    assert (again.context_length, again.pad_token, again.closed) == (77, "<|endoftext|>", False)
    assert again.merges == clip.merges


def test_a_pad_token_written_as_an_object_is_read(clip: Tokenizer) -> None:
    files = clip.files() | {
        "tokenizer_config.json": '{"model_max_length": 1000000000000000019884624838656}',
        "special_tokens_map.json": '{"pad_token": {"content": "!", "lstrip": false}}',
    }
    again = Tokenizer.from_files(files)
    assert again.pad_token_id == 0
    assert again.context_length == 77


def test_the_pad_token_is_cut_out_of_a_prompt_and_counted_each_time(clip: Tokenizer) -> None:
    sd2 = clip_tokenizer("!")
    assert clip.check("wow!!!").num_tokens == 2
    assert sd2.check("wow!!!").num_tokens == 4
    prompt = "cat! " * 37 + "wow!!! the end"
    assert sd2.check(prompt).dropped == "!!! the end"


@pytest.mark.parametrize(("added", "pad"), [({}, "!"), ({"added_tokens_decoder": {}}, ",")])
def test_of_two_pad_tokens_the_maps_counts_unless_the_config_lists_added_tokens(
    clip: Tokenizer, added: dict[str, object], pad: str
) -> None:
    files = clip.files() | {
        "tokenizer_config.json": json.dumps({"pad_token": ",", **added}),
        "special_tokens_map.json": '{"pad_token": "!"}',
    }
    assert Tokenizer.from_files(files).pad_token == pad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab.json": "{"}, "vocab.json is not JSON"),
        ({"vocab.json": "[1]"}, "holds a list"),
        ({"vocab.json": '{"a": 0}'}, "lacks '<|startoftext|>'"),
        ({"merges.txt": "a unheard-of"}, "needs the token 'unheard-of'"),
        ({"vocab.json": "1", "merges.txt": "a b"}, "vocab.json holds a int"),
        ({"tokenizer_config.json": '{"model_max_length": 2}'}, "context_length is 2"),
    ],
)
def test_broken_files_are_one_clear_line(
    closed: Tokenizer, change: dict[str, str], message: str
) -> None:
    with pytest.raises(TextEncoderError) as caught:
        Tokenizer.from_files(closed.files() | change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_json_of_another_kind_is_refused() -> None:
    with pytest.raises(TextEncoderError, match="'Unigram'"):
        Tokenizer.from_files({"tokenizer.json": '{"model": {"type": "Unigram"}}'})


def test_a_missing_file_and_empty_captions_are_errors(closed: Tokenizer) -> None:
    with pytest.raises(TextEncoderError, match=r"neither vocab\.json and merges\.txt"):
        Tokenizer.from_files({"vocab.json": closed.files()["vocab.json"]})
    with pytest.raises(TextEncoderError, match="no word"):
        train_tokenizer(["", "  "])
