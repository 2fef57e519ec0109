"""What stands in the files of a diffusers `tokenizer` folder."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sd_textenc.errors import TextEncoderError

_MAX_ID = 2**24


def read_table(files: Mapping[str, str]) -> tuple[dict[str, int], list[str]]:
    """Return ids by token, and the merges; raises `TextEncoderError` without them."""
    if "vocab.json" in files and "merges.txt" in files:
        lines = files["merges.txt"].split("\n")
        merges = [line for line in lines if line and not line.startswith("#version")]
        return _checked_vocab(json_object(files, "vocab.json")), merges
    if "tokenizer.json" not in files:
        raise TextEncoderError(
            "the tokenizer has neither vocab.json and merges.txt nor tokenizer.json; "
            "a CLIP tokenizer needs them"
        )
    model = json_object(files, "tokenizer.json").get("model")
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


def json_object(files: Mapping[str, str], name: str) -> dict[str, Any]:
    """Read a file's JSON object, an empty one where there is no file."""
    try:
        value = json.loads(files.get(name, "{}"))
    except json.JSONDecodeError as error:
        raise TextEncoderError(f"{name} is not JSON ({error}); write it anew") from error
    if not isinstance(value, dict):
        raise TextEncoderError(f"{name} holds a {type(value).__name__}; it must hold an object")
    return value


def _pair(value: object) -> Sequence[str]:
    if not isinstance(value, list) or len(value) != 2 or not are_texts(value):
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


def are_texts(values: object) -> bool:
    """Tell whether these are a list of texts."""
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def require(holds: bool, name: str, value: object, wanted: str) -> None:
    """Raise `TextEncoderError`, saying what was wanted, unless something holds."""
    if not holds:
        raise TextEncoderError(f"the {name} is {value!r:.60}; it must be {wanted}")
