"""The tables a tokenizer can be built from: OpenAI CLIP's, and one made of a set's captions."""

import gzip
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from sd_textenc.errors import TextEncoderError
from sd_textenc.tokenizer import END, START, Tokenizer, split_words

_TABLE = "bpe_simple_vocab_16e6.txt.gz"
_NUM_CLIP_MERGES = 48_894  # the table holds more; CLIP's 49,408 ids stop here
_END_OF_WORD = "</w>"


def clip_tokenizer(pad_token: str = END) -> Tokenizer:
    """Return OpenAI CLIP's tokenizer: 49,408 ids, context 77.

    `pad_token` is <|endoftext|> in SD 1.x and for SDXL's first encoder, "!" (id 0) in SD 2.x,
    for SDXL's second and the refiner's. The table is read from the installed open_clip
    distribution, which is not imported.

    Raises:
        TextEncoderError: open_clip is not installed.

    """
    spec = find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise TextEncoderError(
            "CLIP's BPE table comes with open_clip, which is not installed: install open-clip-torch"
        )
    table = Path(spec.submodule_search_locations[0]) / _TABLE
    lines = gzip.decompress(table.read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : 1 + _NUM_CLIP_MERGES]  # the first line is a version
    return Tokenizer(_vocabulary(merges), merges, pad_token=pad_token)


def train_tokenizer(captions: Iterable[str], context_length: int = 32) -> Tokenizer:
    """Build a closed tokenizer in which every word of the captions is one token.

    Merges grow a word from its end, one letter at a time: only the last symbol of a word ever
    merges, so their order cannot matter and a known word always comes out whole. Any other
    word comes out as bytes and at most one ending that it shares with a known word. The
    captions' order does not matter.

    Raises:
        TextEncoderError: there is no word in the captions.

    """
    words = sorted({word for caption in captions for word in split_words(caption)} - {START, END})
    if not words:
        raise TextEncoderError("the captions hold no word; pass at least one")
    alphabet = _byte_alphabet()
    merges: dict[str, None] = {}
    for word in words:
        symbols = [alphabet[byte] for byte in word.encode("utf-8")]
        ending = symbols.pop() + _END_OF_WORD
        while symbols:
            symbol = symbols.pop()
            merges[f"{symbol} {ending}"] = None
            ending = symbol + ending
    lines = list(merges)
    return Tokenizer(_vocabulary(lines), lines, context_length=context_length, words=words)


def _vocabulary(merges: list[str]) -> dict[str, int]:
    symbols = _byte_alphabet().values()
    tokens = [
        *symbols,
        *(symbol + _END_OF_WORD for symbol in symbols),
        *(merge.replace(" ", "") for merge in merges),
        START,
        END,
    ]
    return {token: index for index, token in enumerate(tokens)}


def _byte_alphabet() -> dict[int, str]:
    """Map each byte to a visible character, in the order of GPT-2's and CLIP's tables.

    Bytes that are visible Latin-1 characters stand for themselves; the others take the
    characters from U+0100 on.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = sorted(set(range(256)) - set(visible))
    alphabet = {byte: chr(byte) for byte in visible}
    return alphabet | {byte: chr(0x100 + index) for index, byte in enumerate(hidden)}
