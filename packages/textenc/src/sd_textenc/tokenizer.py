"""CLIP's byte-level BPE: prompts to token ids, and what of a prompt gets lost on the way."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import AddedToken, Encoding, Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from torch import Tensor

from sd_textenc.errors import TextEncoderError

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
_MAX_ID = 2**24


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
        self._backend = _build_backend(self.vocab, self.merges, (START, END, pad_token))

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
        ids: list[int] = self._encode(text).ids
        return ids

    def pack(self, token_ids: Sequence[int]) -> list[int]:
        """Return T ids: start, up to T - 2 ids, end, padding."""
        ids = [self.bos_token_id, *token_ids, self.eos_token_id]
        return ids + [self.pad_token_id] * (self.context_length - len(ids))

    def check(self, prompt: str) -> PromptReport:
        """Report how many tokens a prompt has, what is dropped, and which words are unknown."""
        encoding = self._encode(prompt)
        room = self.context_length - 2
        dropped = ""
        if len(encoding.ids) > room:
            dropped = prompt[encoding.offsets[room][0] :].strip()
        unknown: tuple[str, ...] = ()
        if self.words is not None:
            known = self.words | {START, END}
            unknown = tuple(dict.fromkeys(w for w in split_words(prompt) if w not in known))
        return PromptReport(num_tokens=len(encoding.ids), dropped=dropped, unknown=unknown)

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
        vocab, merges = _read_table(files)
        config = _json_object(files, "tokenizer_config.json")
        specials = _json_object(files, "special_tokens_map.json")
        sources = [config, specials] if "added_tokens_decoder" in config else [specials, config]
        pad = next((s["pad_token"] for s in sources if s.get("pad_token")), END)
        if isinstance(pad, Mapping):
            pad = pad.get("content")
        length = config.get("model_max_length", 77)
        words = config.get("words", []) if config.get("closed_vocabulary") else None
        _require(isinstance(pad, str), "tokenizer's pad_token", pad, "a text")
        _require(isinstance(length, int | float), "model_max_length", length, "a number")
        _require(words is None or _are_texts(words), "tokenizer's words", words, "a list of texts")
        return cls(
            vocab,
            merges,
            # transformers writes a huge number where it knows no limit.
            context_length=int(length) if length < 10**6 else 77,
            words=words,
            pad_token=str(pad),
        )

    def _encode(self, prompt: str) -> Encoding:
        # One at a time: a batch starts threads, which warn when a data loader forks afterwards.
        return self._backend.encode(prompt, add_special_tokens=False)


def _build_backend(
    vocab: dict[str, int], merges: Sequence[str], specials: Sequence[str]
) -> Backend:
    pairs = []
    for line in merges:
        left, _, right = line.partition(" ")
        for token in (left, right, left + right):
            if token not in vocab:
                raise TextEncoderError(
                    f"the merge {line!r} needs the token {token!r}, which the vocabulary lacks"
                )
        pairs.append((left, right))
    backend = Backend(
        models.BPE(vocab=vocab, merges=pairs, end_of_word_suffix="</w>", unk_token=END)
    )
    backend.normalizer = _NORMALIZER
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [_SPLITTER, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.add_special_tokens([AddedToken(token, special=True) for token in specials])
    return backend


def _read_table(files: Mapping[str, str]) -> tuple[dict[str, int], list[str]]:
    if "vocab.json" in files and "merges.txt" in files:
        lines = files["merges.txt"].split("\n")
        merges = [line for line in lines if line and not line.startswith("#version")]
        return _checked_vocab(_json_object(files, "vocab.json")), merges
    if "tokenizer.json" not in files:
        raise TextEncoderError(
            "the tokenizer has neither vocab.json and merges.txt nor tokenizer.json; "
            "a CLIP tokenizer needs them"
        )
    model = _json_object(files, "tokenizer.json").get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if not isinstance(model, dict) or kind != "BPE":
        raise TextEncoderError(
            f"tokenizer.json holds a {kind!r:.60} model; a CLIP tokenizer's is 'BPE'"
        )
    pairs = model.get("merges")
    if not isinstance(pairs, list):
        raise TextEncoderError(f"tokenizer.json's merges are {pairs!r:.60}; they must be a list")
    lines = [pair if isinstance(pair, str) else " ".join(_pair(pair)) for pair in pairs]
    return _checked_vocab(model.get("vocab")), lines


def _json_object(files: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        value = json.loads(files.get(name, "{}"))
    except json.JSONDecodeError as error:
        raise TextEncoderError(f"{name} is not JSON ({error}); write it anew") from error
    if not isinstance(value, dict):
        raise TextEncoderError(f"{name} holds a {type(value).__name__}; it must hold an object")
    return value


def _pair(value: object) -> Sequence[str]:
    if not isinstance(value, list) or len(value) != 2 or not _are_texts(value):
        raise TextEncoderError(f"the merge {value!r:.60} is no pair of texts; make it one")
    return value


def _checked_vocab(vocab: object) -> dict[str, int]:
    """Require ids that an embedding can have: a huge one would make as many rows."""
    if not isinstance(vocab, dict):
        raise TextEncoderError(f"the vocabulary is {vocab!r:.60}; it must be an object")
    for token, number in vocab.items():
        if type(number) is not int or not 0 <= number < _MAX_ID:
            raise TextEncoderError(
                f"the vocabulary gives {token!r:.60} the id {number!r:.60}; "
                f"it must be a whole number from 0 to {_MAX_ID - 1:,}"
            )
    return vocab


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise TextEncoderError(f"the {name} is {value!r:.60}; it must be {wanted}")
