"""Give a text encoder of a closed vocabulary further words."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from sd_textenc.clip import CLIPTextEncoder
from sd_textenc.errors import TextEncoderError
from sd_textenc.tokenizer import Tokenizer


def with_words(
    encoder: CLIPTextEncoder, words: Mapping[str, str], *, seed: int = 0
) -> CLIPTextEncoder:
    """Return a copy of `encoder` that knows further words, each somewhat like a known one.

    `words` maps each new word to the known one that it begins like. Its embedding is half that
    one's and half a random one, of the spread of all: so it is used as that one is, and what is
    said before it reaches its state, and the two are told apart. What known words give stays what
    it was, to the bit. The network that reads the states has to learn what the new ones mean.

    Raises:
        TextEncoderError: the vocabulary is not closed, a word is known already or is not one
            lower-case word, or the one that it is to be like is not known as one token.

    """
    old = encoder.tokenizer
    _check(old, words)
    tokenizer = old.with_words(list(words))
    config = replace(
        encoder.config, vocab_size=max(tokenizer.vocab_size, encoder.config.vocab_size)
    )
    state = encoder.model.state_dict()
    key = next(key for key in state if key.endswith("token_embedding.weight"))
    rows = torch.zeros(config.vocab_size, config.hidden_size, dtype=state[key].dtype)
    rows[: len(state[key])] = state[key]
    known = rows[[old.tokenize(word)[0] for word in sorted(old.words or ()) if _whole(old, word)]]
    middle, spread = known.mean(0), known.std(0)
    generator = torch.Generator().manual_seed(seed)
    for word, like in words.items():
        noise = spread * torch.randn(config.hidden_size, generator=generator)
        like_one = rows[old.tokenize(like)[0]] - middle
        # Of two that are as long, the middle is shorter by a root of two.
        rows[tokenizer.tokenize(word)[0]] = middle + (like_one + noise) * 0.5**0.5
    grown = CLIPTextEncoder(config, tokenizer, encoder.clip_skip, penultimate=encoder.penultimate)
    grown.model.load_state_dict({**state, key: rows})
    return grown.to(dtype=state[key].dtype)


def _whole(tokenizer: Tokenizer, word: str) -> bool:
    return len(tokenizer.tokenize(word)) == 1


def _check(tokenizer: Tokenizer, words: Mapping[str, str]) -> None:
    if tokenizer.words is None:
        raise TextEncoderError(
            "this text encoder reads any word; textual inversion teaches it new names"
        )
    for word, like in words.items():
        if word in tokenizer.words:
            raise TextEncoderError(f"{word!r} is known already; leave it out")
        if like not in tokenizer.words or not _whole(tokenizer, like):
            raise TextEncoderError(
                f"{word!r} is to begin like {like!r}, which is no word of the vocabulary; name one"
            )
