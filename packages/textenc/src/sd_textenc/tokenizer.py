"""CLIP's byte-level BPE: prompts to token ids, and what of a prompt gets lost on the way."""

import copy
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from tokenizers import AddedToken, Encoding, Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from torch import Tensor

from sd_textenc.errors import TextEncoderError
from sd_textenc.tokenizer_files import are_texts, json_object, read_table, require

START = "<|startoftext|>"
END = "<|endoftext|>"

# CLIP's rule: a contraction, a run of letters, one digit, or a run of anything else is a word.
_WORD = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
_NORMALIZER = normalizers.Sequence(
    [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
)
_SPLITTER = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)
_MERGES_HEADER = "#version: 0.2"


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptReport:
    """Say what a tokenizer makes of a prompt.

    `num_tokens` counts the whole prompt without start and end; `dropped` is the end of the
    prompt that the context has no room for, as it was written ("" when all fits); `unknown`
    are the words that a closed vocabulary lacks, lower-cased, each once, in order; `notes` say in
    a line each what of a prompt's syntax was taken otherwise than it may have been meant.
    """

    num_tokens: int
    dropped: str
    unknown: tuple[str, ...]
    notes: tuple[str, ...] = ()


def split_words(text: str) -> list[str]:
    """Split text into the words CLIP's BPE works on: NFC, lower case, no white space."""
    normal = _NORMALIZER.normalize_str(text)
    return [piece for piece, _ in _SPLITTER.pre_tokenize_str(normal)]


class Tokenizer:
    """Turn prompts into ids, equal to those of transformers' CLIPTokenizer of the same table.

    `merges` are lines "left right", first line merged first. Ids are padded with `pad_token`
    (<|endoftext|> in SD 1.x, "!" in SD 2.x and SDXL's second), which is cut out of a prompt
    before it is split into words: where "!" pads, "wow!!!" is "wow" and three times its id.
    `words`, where given, close the vocabulary: the network behind it knows these and no
    others, and `check` names the rest.

    Raises:
        TextEncoderError: the table lacks a special token or a merge's parts, or the context
            has no room for a word.

    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[str],
        *,
        context_length: int = 77,
        words: Collection[str] | None = None,
        pad_token: str = END,
    ):
        if context_length < 3:
            raise TextEncoderError(
                f"context_length is {context_length}; it must be at least 3: start, a word, end"
            )
        for token in (START, END, pad_token):
            if token not in vocab:
                raise TextEncoderError(f"the vocabulary lacks {token!r}; add it to vocab.json")
        self.vocab = dict(vocab)
        self.merges = tuple(merges)
        self.context_length = context_length
        self.words = None if words is None else frozenset(words)
        self.pad_token = pad_token
        _check_merges(self.vocab, self.merges)
        self._bpe = _BPE(self.vocab, self.merges, (START, END, pad_token))
        self._names: dict[str, tuple[int, ...]] = {}
        self._place_in_name: dict[int, int] = {}

    @property
    def vocab_size(self) -> int:
        """Return the number of rows a token embedding needs."""
        return max(self.vocab.values()) + 1

    @property
    def closed(self) -> bool:
        """Tell whether words outside the vocabulary mean nothing to the network."""
        return self.words is not None

    @property
    def bos_token_id(self) -> int:
        """Return the id of <|startoftext|>."""
        return self.vocab[START]

    @property
    def eos_token_id(self) -> int:
        """Return the id of <|endoftext|>."""
        return self.vocab[END]

    @property
    def pad_token_id(self) -> int:
        """Return the id that fills the context after the end."""
        return self.vocab[self.pad_token]

    def with_names(self, names: Mapping[str, Sequence[int]]) -> "Tokenizer":
        """Return a tokenizer that makes of each name, in any case, ids of its own.

        Such names stand for learnt vectors (Gal et al., arXiv:2208.01618), which the encoder has
        to have: a name that is a part of a longer word is none, and the longest one counts. Names
        of this tokenizer stay. Files do not hold them.

        Raises:
            TextEncoderError: a name is empty, twice there, or has no ids or ids of the vocabulary.

        """
        named = copy.copy(self)
        named._names = dict(self._names)
        for name, ids in names.items():
            if not name.strip() or name.lower() in named._names:
                raise TextEncoderError(f"the name {name!r} is empty or taken; choose another")
            if not ids or min(ids) < self.vocab_size:
                raise TextEncoderError(
                    f"the name {name!r} stands for the ids {list(ids)}; give it one or more, "
                    f"from {self.vocab_size} on"
                )
            named._names[name.lower()] = tuple(ids)
        named._place_in_name = {
            one: place for ids in named._names.values() for place, one in enumerate(ids)
        }
        return named

    def with_words(self, words: Sequence[str]) -> "Tokenizer":
        """Return a tokenizer that makes one token of each of `words`, too.

        New ids follow all others, so that the encoder's rows stay where they are; the new merges
        come last and leave known words as they were. Learnt names are not kept.

        Raises:
            TextEncoderError: a word is not one lower-case word.

        """
        vocab, merges = dict(self.vocab), list(self.merges)
        texts = {token: text for text, token in vocab.items()}
        for word in words:
            if split_words(word) != [word]:
                raise TextEncoderError(f"{word!r} is not one lower-case word; name words")
            first, *others = (texts[token] for token in self.tokenize(word))
            for piece in others:
                if first + piece not in vocab:
                    vocab[first + piece] = max(vocab.values()) + 1
                merges.append(f"{first} {piece}")
                first += piece
        known = None if self.words is None else self.words | set(words)
        return Tokenizer(
            vocab,
            list(dict.fromkeys(merges)),
            context_length=self.context_length,
            words=known,
            pad_token=self.pad_token,
        )

    def next_id(self, least: int) -> int:
        """Return the first id from `least` on that comes after every name's."""
        return max([least, *(token + 1 for token in self._place_in_name)])

    def place_in_name(self, token_id: int) -> int | None:
        """Return the place of an id among those of its name, from 0, and None for no name's."""
        return self._place_in_name.get(token_id)

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Return ids (B, T): start, the prompt's tokens, end, padding.

        Tokens beyond T - 2 are left out: ask `check` first, and tell the user.

        Raises:
            TextEncoderError: `prompts` is one string instead of a sequence of them.

        """
        if isinstance(prompts, str):
            raise TextEncoderError(f"prompts is the string {prompts!r}; pass a list of strings")
        room = self.context_length - 2
        rows = torch.empty((len(prompts), self.context_length), dtype=torch.long)
        for row, prompt in zip(rows, prompts, strict=True):
            row[:] = torch.tensor(self.pack(self.tokenize(prompt)[:room]))
        return rows

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text of any length, without start, end and padding."""
        return [token for token, _ in self._tokens(text)]

    def pack(self, token_ids: Sequence[int]) -> list[int]:
        """Return T ids: start, up to T - 2 ids, end, padding."""
        ids = [self.bos_token_id, *token_ids, self.eos_token_id]
        return ids + [self.pad_token_id] * (self.context_length - len(ids))

    def check(self, prompt: str) -> PromptReport:
        """Report how many tokens a prompt has, what is dropped, and which words are unknown."""
        tokens = self._tokens(prompt)
        room = self.context_length - 2
        dropped = prompt[tokens[room][1] :].strip() if len(tokens) > room else ""
        unknown: tuple[str, ...] = ()
        if self.words is not None:
            known = self.words | {START, END}
            texts = [text for text, _, ids in self._pieces(prompt) if not ids]
            words = (word for text in texts for word in split_words(text))
            unknown = tuple(dict.fromkeys(word for word in words if word not in known))
        return PromptReport(num_tokens=len(tokens), dropped=dropped, unknown=unknown)

    def files(self) -> dict[str, str]:
        """Return the texts of a diffusers `tokenizer` folder by file name.

        transformers' CLIPTokenizer opened on that folder gives equal ids.
        """
        specials = {
            "bos_token": START,
            "eos_token": END,
            "pad_token": self.pad_token,
            "unk_token": END,
        }
        config: dict[str, Any] = {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": self.context_length,
            "do_lower_case": True,
            "add_prefix_space": False,
            **specials,
        }
        if self.words is not None:
            config |= {"closed_vocabulary": True, "words": sorted(self.words)}
        return {
            "vocab.json": json.dumps(self.vocab, ensure_ascii=False),
            "merges.txt": "\n".join([_MERGES_HEADER, *self.merges]) + "\n",
            "tokenizer_config.json": json.dumps(config, ensure_ascii=False, indent=2) + "\n",
            "special_tokens_map.json": json.dumps(specials, indent=2) + "\n",
        }

    @classmethod
    def from_files(cls, files: Mapping[str, str]) -> "Tokenizer":
        """Read the texts of a diffusers `tokenizer` folder, ours or another's.

        The table is `vocab.json` with `merges.txt`, or else `tokenizer.json`, the only one
        that transformers 5 writes. `special_tokens_map.json` may be absent, and
        `tokenizer_config.json` too: then the context is CLIP's 77 and <|endoftext|> pads.
        Where the two name different pad tokens, as in SD 2.x, the map's counts unless the
        config lists its `added_tokens_decoder`: that is transformers' rule.

        Raises:
            TextEncoderError: a file is missing or is not what its name says.

        """
        vocab, merges = read_table(files)
        config = json_object(files, "tokenizer_config.json")
        specials = json_object(files, "special_tokens_map.json")
        sources = [config, specials] if "added_tokens_decoder" in config else [specials, config]
        pad = next((s["pad_token"] for s in sources if s.get("pad_token")), END)
        if isinstance(pad, Mapping):
            pad = pad.get("content")
        length = config.get("model_max_length", 77)
        words = config.get("words", []) if config.get("closed_vocabulary") else None
        require(isinstance(pad, str), "tokenizer's pad_token", pad, "a text")
        require(isinstance(length, int | float), "model_max_length", length, "a number")
        require(words is None or are_texts(words), "tokenizer's words", words, "a list of texts")
        return cls(
            vocab,
            merges,
            # transformers writes a huge number where it knows no limit.
            context_length=int(length) if length < 10**6 else 77,
            words=words,
            pad_token=str(pad),
        )

    def _tokens(self, text: str) -> list[tuple[int, int]]:
        """Return the ids of a text, each with the place in it where it begins."""
        tokens: list[tuple[int, int]] = []
        for piece, start, ids in self._pieces(text):
            if ids:
                tokens += [(token, start) for token in ids]
                continue
            encoding = self._encode(piece)
            begins = (start + begin for begin, _ in encoding.offsets)
            tokens += zip(encoding.ids, begins, strict=True)
        return tokens

    def _pieces(self, text: str) -> Iterator[tuple[str, int, tuple[int, ...]]]:
        """Cut a text at its names: each piece with its place, and the ids of a name."""
        end = 0
        for match in _any_of(self._names).finditer(text) if self._names else ():
            if match.start() > end:
                yield text[end : match.start()], end, ()
            yield match[0], match.start(), self._names[match[0].lower()]
            end = match.end()
        if end < len(text) or not text:
            yield text[end:], end, ()

    def _encode(self, prompt: str) -> Encoding:
        # One at a time: a batch starts threads, which warn when a data loader forks afterwards.
        return self._bpe.backend.encode(prompt, add_special_tokens=False)


def _any_of(names: Collection[str]) -> re.Pattern[str]:
    """Match the longest of some names that is not part of a longer word."""
    ends = [
        (r"(?<!\w)" if name[0].isalnum() else "")
        + re.escape(name)
        + (r"(?!\w)" if name[-1].isalnum() else "")
        for name in sorted(names, key=len, reverse=True)
    ]
    return re.compile("|".join(ends), re.IGNORECASE)


def _check_merges(vocab: Mapping[str, int], merges: Sequence[str]) -> None:
    """Raise `TextEncoderError` for a merge whose parts, or the two together, have no id."""
    for line in merges:
        left, right = _pair(line)
        if left not in vocab or right not in vocab or left + right not in vocab:
            token = next(token for token in (left, right, left + right) if token not in vocab)
            raise TextEncoderError(
                f"the merge {line!r} needs the token {token!r}, which the vocabulary lacks"
            )


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


class _BPE:
    """What splits and merges texts, made when the first is asked for.

    Making it takes as long as making the networks of SD 1.5, and whoever converts a model or
    decodes latents never asks.
    """

    def __init__(
        self, vocab: dict[str, int], merges: Sequence[str], specials: Sequence[str]
    ) -> None:
        self._vocab = vocab
        self._merges = merges
        self._specials = specials

    @cached_property
    def backend(self) -> Backend:
        pairs = list(map(_pair, self._merges))  # 10 MB of SD 1.5's: not kept
        backend = Backend(
            models.BPE(vocab=self._vocab, merges=pairs, end_of_word_suffix="</w>", unk_token=END)
        )
        backend.normalizer = _NORMALIZER
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [_SPLITTER, pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        specials = [AddedToken(token, special=True) for token in self._specials]
        backend.add_special_tokens(specials)
        return backend
