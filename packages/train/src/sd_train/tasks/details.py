"""What a caption says of a thing besides its colour is read as if it were all that is said.

"a white dog with brown patches and a blue scarf on a green rug" has two details, "with brown
patches" and "and a blue scarf". A small encoder forgets the green over them: the rug's state holds
as much of the scarf's colour as of its own. A detail alone after the dog it knows, and the rug
without any, so these states are what the whole caption's are to be.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class DetailWords:
    """Ids of words: what opens a detail, what it is of, and what may stand in it besides."""

    openers: frozenset[int]
    details: frozenset[int]
    others: frozenset[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpts:
    """Shortened captions (R, T); for each word of (B, T) the one to read it in, and its place."""

    token_ids: Tensor
    row: Tensor
    place: Tensor


def excerpts(token_ids: Tensor, words: DetailWords, end: int) -> Excerpts:
    """Shorten captions (B, T) for each of their words; `end` is what they end and are filled with.

    A word of a detail is read in the caption up to there without the other details, any other word
    in one without all of them. The end itself is read in the whole caption.
    """
    length = token_ids.shape[1]
    rows: list[list[int]] = []
    which: list[list[int]] = []
    where: list[list[int]] = []
    for ids in token_ids.tolist():
        spans = _spans(ids, words)
        inside = {place for span in spans for place in span}
        rest = [place for place in range(length) if place not in inside]
        kept = [rest] + [[*(p for p in rest if p < span[0]), *span] for span in spans]
        number = {place: index + 1 for index, span in enumerate(spans) for place in span}
        stop = ids.index(end)
        row = [len(rows) + 1 + number.get(place, 0) for place in range(length)]
        place = [kept[number.get(place, 0)].index(place) for place in range(length)]
        for after in range(stop, length):
            row[after], place[after] = len(rows), after
        which.append(row)
        where.append(place)
        for places in (range(length), *kept):
            told = [ids[each] for each in places]
            rows.append(told + [end] * (length - len(told)))
    return Excerpts(
        token_ids=torch.tensor(rows, device=token_ids.device),
        row=torch.tensor(which, device=token_ids.device),
        place=torch.tensor(where, device=token_ids.device),
    )


def _spans(ids: list[int], words: DetailWords) -> list[range]:
    """Return where a caption's details stand: an opener and what follows up to its last word."""
    spans, at = [], 0
    while at < len(ids):
        last = 0
        if ids[at] in words.openers:
            after = at + 1
            while after < len(ids) and ids[after] in words.details | words.others:
                if ids[after] in words.details:
                    last = after
                after += 1
        if last:
            spans.append(range(at, last + 1))
        at = max(at, last) + 1
    return spans
