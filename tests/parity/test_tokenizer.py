"""Token ids against transformers' CLIPTokenizer and open_clip's SimpleTokenizer: equal."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from sd_textenc import Tokenizer, clip_tokenizer, train_tokenizer
from tests.textenc.prompts import thousand_prompts

PROMPTS = (
    "",
    " ",
    "a photo of a cat",
    "A Photo, of   a CAT.\n\tBy night!!!",
    "it's they've I'm we'll he'd DON'T rock'n'roll ''s",
    "1girl, 4k, 8K, f/1.8, 2024-12-31, ١٢٣, ½",
    "(masterpiece:1.2), [blurry|sharp], <lora:x:0.5>, best_quality --ar 16:9",
    "caf\u00e9 cafe\u0301 na\u00efve \u212bngstr\u00f6m \u0130stanbul STRASSE stra\u00dfe",
    "🐱🐶 👩‍👩‍👧 🇫🇷 ✨glow✨",
    "猫 on a マット, кошка, قطة, แมว, बिल्ली",
    "a\u00a0b\u2003c\u3000d\u200be",
    "# ## : ... … @ #hashtag @user http://a.b/c?d=e&f",
    "supercalifragilisticexpialidocious antidisestablishmentarianism qwrtzp",
    "inside <|endoftext|> and <|startoftext|> the prompt",
    "cat " * 100,
    "x" * 300,
)


def random_prompts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    letters = "abcdefghij KLM  ,.'!-_0123\n\té\u0301ßüÑ我🐱\u00a0sdtmrevl"
    return ["".join(rng.choices(letters, k=rng.randint(1, 90))) for _ in range(count)]


def write(tokenizer: Tokenizer, folder: Path) -> Path:
    for name, text in tokenizer.files().items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return folder


def peer_ids(peer: Any, prompts: list[str]) -> torch.Tensor:
    ids = peer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return torch.as_tensor(ids)


@pytest.fixture(scope="module")
def clip() -> Tokenizer:
    return clip_tokenizer()


@pytest.mark.parametrize("pad_token", ["<|endoftext|>", "!"])
def test_clip_ids_equal_those_of_transformers_for_a_thousand_prompts_of_every_script(
    pad_token: str, tmp_path: Path
) -> None:
    from transformers import CLIPTokenizer

    ours = clip_tokenizer(pad_token)
    peer = CLIPTokenizer.from_pretrained(write(ours, tmp_path))
    assert len(peer) == ours.vocab_size
    assert peer.model_max_length == 77
    assert peer.pad_token_id == ours.pad_token_id
    prompts = [*PROMPTS, *random_prompts(500, seed=1), *thousand_prompts()]
    assert torch.equal(ours(prompts), peer_ids(peer, prompts))


def token(content: str, **more: object) -> dict[str, object]:
    return {"content": content, "lstrip": False, "rstrip": False, "single_word": False, **more}


START, END = "<|startoftext|>", "<|endoftext|>"
PLAIN = {"bos_token": START, "eos_token": END, "unk_token": END}
OBJECTS = {name: token(content, normalized=True) for name, content in PLAIN.items()}
# tokenizer_config.json and special_tokens_map.json as the published folders have them.
PUBLISHED: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "SD 1.5": ({"pad_token": END}, OBJECTS | {"pad_token": END}, 49407),
    # The config says one pad token and the map another: the map counts.
    "SD 2.1": ({"pad_token": END}, OBJECTS | {"pad_token": "!"}, 0),
    "SDXL tokenizer_2": (
        {
            **PLAIN,
            "pad_token": "!",
            "added_tokens_decoder": {
                "0": token("!", normalized=False, special=True),
                "49406": token(START, normalized=True, special=True),
                "49407": token(END, normalized=False, special=True),
            },
        },
        OBJECTS | {"eos_token": END, "unk_token": END, "pad_token": "!"},
        0,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_folder_gives_the_ids_it_gives_in_transformers(
    clip: Tokenizer, tmp_path: Path, name: str
) -> None:
    from transformers import CLIPTokenizer

    config, specials, pad_token_id = PUBLISHED[name]
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **config}
    files = clip.files() | {
        "tokenizer_config.json": json.dumps(config),
        "special_tokens_map.json": json.dumps(specials),
    }
    for file, text in files.items():
        (tmp_path / file).write_text(text, encoding="utf-8", newline="\n")
    ours, peer = Tokenizer.from_files(files), CLIPTokenizer.from_pretrained(tmp_path)
    assert ours.pad_token_id == peer.pad_token_id == pad_token_id
    prompts = ["!", "Wow!!! a cat!", "!a!", *thousand_prompts()]
    assert torch.equal(ours(prompts), peer_ids(peer, prompts))


def test_closed_ids_equal_those_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, CLIPTokenizer

    closed = train_tokenizer(["a photo of a black cat, café", "it's 3 dogs on the mat"])
    write(closed, tmp_path)
    prompts = [*PROMPTS, *random_prompts(500, seed=2), "A Black cat on 3 mats, bobcat"]
    for peer_class in (CLIPTokenizer, AutoTokenizer):
        peer = peer_class.from_pretrained(tmp_path)
        assert len(peer) == closed.vocab_size
        assert peer.model_max_length == 32
        assert peer.pad_token_id == closed.pad_token_id
        assert torch.equal(closed(prompts), peer_ids(peer, prompts))


def test_a_folder_that_transformers_wrote_is_read(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    closed = train_tokenizer(["a photo of a black cat, café"])
    written = tmp_path / "written"
    CLIPTokenizer.from_pretrained(write(closed, tmp_path)).save_pretrained(written)
    files = {path.name: path.read_text(encoding="utf-8") for path in written.iterdir()}
    again = Tokenizer.from_files(files)
    assert again.words == closed.words
    assert again.context_length == 32
    assert torch.equal(again(PROMPTS), closed(PROMPTS))


# open_clip cleans text first (ftfy.fix_text, then html.unescape twice), as OpenAI's training code
# did; transformers does not. open_clip also spells the special tokens otherwise and pads with 0.
OPEN_CLIP_DIFFERS = {
    "html entities": "cats &amp; dogs",
    "curly quotes": "the cat\u2019s mat",
    "mojibake": "caf\u00c3\u00a9",
    "full width": "\uff43\uff41\uff54",
    "ligatures": "\ufb01sh",
    "digraph letters": "\u01c5",
    "byte order mark": "cat\ufeff",
    "special tokens in the prompt": "a <|endoftext|> b",
}


def test_clip_ids_equal_those_of_open_clip_on_clean_text(clip: Tokenizer) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    peer = SimpleTokenizer()
    clean = [prompt for prompt in PROMPTS if "<|" not in prompt]
    for prompt in [*clean, *random_prompts(200, seed=3)]:
        expected = [clip.bos_token_id, *peer.encode(prompt)[:75], clip.eos_token_id]
        assert clip([prompt])[0, : len(expected)].tolist() == expected, prompt


def test_clip_ids_of_text_that_open_clip_has_cleaned_equal_its_own_for_a_thousand_prompts(
    clip: Tokenizer,
) -> None:
    """Leaves out U+0345, a mark that open_clip's case-blind pattern takes for a letter."""
    from open_clip.tokenizer import SimpleTokenizer, basic_clean

    peer = SimpleTokenizer()
    prompts = [prompt for prompt in thousand_prompts() if "\u0345" not in prompt]
    assert len(prompts) > 950
    for prompt in prompts:
        expected = [clip.bos_token_id, *peer.encode(prompt)[:75], clip.eos_token_id]
        ours = clip([basic_clean(prompt)])
        assert ours[0, : len(expected)].tolist() == expected, prompt


def test_where_an_exclamation_mark_pads_it_has_one_id_and_in_open_clip_another() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    ours = clip_tokenizer("!")(["wow!!!"])
    assert ours[0, :6].tolist() == [49406, 2781, 0, 0, 0, 49407]
    assert SimpleTokenizer().encode("wow!!!") == [2781, 995]


@pytest.mark.parametrize("prompt", OPEN_CLIP_DIFFERS.values(), ids=OPEN_CLIP_DIFFERS.keys())
def test_where_the_two_peers_differ_ours_are_those_of_transformers(
    clip: Tokenizer, tmp_path: Path, prompt: str
) -> None:
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    peer = CLIPTokenizer.from_pretrained(write(clip, tmp_path))
    ours = clip([prompt])
    assert torch.equal(ours, peer_ids(peer, [prompt]))
    theirs = [*SimpleTokenizer().encode(prompt), clip.eos_token_id]
    assert ours[0, 1 : 1 + len(theirs)].tolist() != theirs
