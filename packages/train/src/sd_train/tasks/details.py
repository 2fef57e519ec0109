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
    """Ids of words: what opens a detail, what it is of, and what may stand before either."""

    openers: frozenset[int]
    details: frozenset[int]
    modifiers: frozenset[int]
    skipped: frozenset[int]
    apart: bool = False
    """Whether the modifiers of things that were named before are left out, too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpts:
    """Shortened captions (R, T); for each word of (B, T) the one to read it in, and its place."""

    token_ids: Tensor
    row: Tensor
    place: Tensor


def excerpts(token_ids: Tensor, words: DetailWords, end: int) -> Excerpts:
    """Shorten captions (B, T) for each of their words; `end` is what they end and are filled with.

    A word is read without the details that were told before it, but for the one that it is in. The
    end itself is read in the whole caption.
    """
    length = token_ids.shape[1]
    rows: list[list[int]] = []
    which: list[list[int]] = []
    where: list[list[int]] = []
    for ids in token_ids.tolist():
        row_of: dict[frozenset[int], int] = {}
        row, place = [], []
        for at, left_out in enumerate(_left_out(ids[: ids.index(end)], words)):
            if left_out not in row_of:
                row_of[left_out] = len(rows)
                told = [each for number, each in enumerate(ids) if number not in left_out]
                rows.append(told + [end] * len(left_out))
            row.append(row_of[left_out])
            place.append(at - len(left_out))
        which.append(row + [len(rows)] * (length - len(row)))
        where.append(place + list(range(len(place), length)))
        rows.append(ids)
    return Excerpts(
        token_ids=torch.tensor(rows, device=token_ids.device),
        row=torch.tensor(which, device=token_ids.device),
        place=torch.tensor(where, device=token_ids.device),
    )


def _left_out(ids: list[int], words: DetailWords) -> list[frozenset[int]]:
    """Return for each word of a caption which places before it are left out."""
    others, found = frozenset[int](), []
    mine: frozenset[int] = frozenset()
    modifying: list[int] = []
    for at, each in enumerate(ids):
        if at not in mine:
            others |= mine
            mine = _detail(ids, at, words)
        found.append(others)
        if each in words.modifiers:
            modifying.append(at)
        elif each not in words.skipped:
            if words.apart:
                others |= frozenset(modifying)
            modifying.clear()
    return found


def _detail(ids: list[int], at: int, words: DetailWords) -> frozenset[int]:
    """Return the places of the detail that begins at one: an opener and up to its last word."""
    if ids[at] not in words.openers:
        return frozenset()
    within = words.details | words.modifiers | words.skipped
    last, after = 0, at + 1
    while after < len(ids) and ids[after] in within:
        if ids[after] in words.details:
            last = after
        after += 1
    return frozenset(range(at, last + 1))
