"""Prompts with weights, as long as they like: encoded in pieces of the tower's context."""

from collections.abc import Iterator, Sequence
from itertools import chain, repeat

import torch
from torch import Tensor

from sd_textenc.conditioning import Conditioning
from sd_textenc.dual import DualTextEncoder
from sd_textenc.prompts import Emphasis, Span
from sd_textenc.tokenizer import Tokenizer
from sd_textenc.tower import TextTower

_LEAST_MEAN = 0.01
_COMMA_WITHIN = 20  # the web UI's own "prompt word wrap length limit"
Weighed = tuple[int, float]
"""A token's id and its weight."""


def encode_weighted(
    encoder: TextTower | DualTextEncoder, prompts: Sequence[Emphasis]
) -> Conditioning:
    """Encode B prompts into hidden states (B, n T, D) and pooled (B, P) of each one's beginning.

    As the web UI (AUTOMATIC1111) has it: a prompt is cut into chunks of T - 2 tokens, and at every
    BREAK; each chunk goes through the tower by itself, and their states follow one another. n is
    what the longest prompt needs, and shorter ones end in empty chunks. The states of a token are
    multiplied by its weight, and then those of the chunk by what gives them their mean back. For
    prompts of one chunk without weights it is `encoder.encode`.

    A chunk that is full ends behind its last comma, where that is one of its last 20 tokens.
    """
    towers = (encoder.first, encoder.second) if isinstance(encoder, DualTextEncoder) else (encoder,)
    chunks = [[list(_chunks(tower.tokenizer, prompt)) for prompt in prompts] for tower in towers]
    number = max(len(of_prompt) for of_tower in chunks for of_prompt in of_tower)
    encoded = [
        _encode_chunks(tower, of_tower, number)
        for tower, of_tower in zip(towers, chunks, strict=True)
    ]
    states = [each.hidden_states for each in encoded]
    return Conditioning(
        hidden_states=states[0] if len(states) == 1 else torch.cat(states, dim=-1),
        pooled=encoded[-1].pooled,
    )


def _chunks(tokenizer: Tokenizer, prompt: Emphasis) -> Iterator[list[Weighed]]:
    room = tokenizer.context_length - 2
    for section in prompt.sections:
        weighed = list(chain.from_iterable(_tokens(tokenizer, span) for span in section))
        yield from _cut(weighed, room, tokenizer)


def _cut(weighed: list[Weighed], room: int, tokenizer: Tokenizer) -> Iterator[list[Weighed]]:
    """Cut a section into chunks, behind a comma where one is near: thoughts stay together.

    So do the vectors of a name, before which a chunk ends that has no room for all of them.
    """
    comma = tokenizer.tokenize(",")
    while len(weighed) > room:
        end = room
        place = tokenizer.place_in_name(weighed[room][0])
        if place is not None:
            end = room - place if place < room else room
        # The web UI looks when there is a token too many, and not if that is a comma itself.
        elif [weighed[room][0]] != list(comma):
            near = range(room - 1, room - 1 - _COMMA_WITHIN, -1)
            end = next((at + 1 for at in near if at >= 0 and [weighed[at][0]] == list(comma)), room)
        yield weighed[:end]
        weighed = weighed[end:]
    yield weighed


def _tokens(tokenizer: Tokenizer, span: Span) -> Iterator[Weighed]:
    return zip(tokenizer.tokenize(span.text), repeat(span.weight))


def _encode_chunks(
    tower: TextTower, prompts: Sequence[list[list[Weighed]]], number: int
) -> Conditioning:
    rows: list[list[Weighed]] = []
    for chunks in prompts:
        rows += chunks
        rows += [[]] * (number - len(chunks))
    tokenizer = tower.tokenizer
    ids = torch.tensor([tokenizer.pack([token for token, _ in row]) for row in rows])
    encoded = tower.encode_tokens(ids)
    states = _weigh(encoded.hidden_states, _weights(rows, tokenizer.context_length))
    pooled = encoded.pooled
    return Conditioning(
        hidden_states=states.reshape(len(prompts), number * states.shape[1], states.shape[2]),
        pooled=None if pooled is None else pooled[::number],
    )


def _weights(rows: Sequence[list[Weighed]], length: int) -> Tensor:
    weights = torch.ones(len(rows), length)
    for row, chunk in zip(weights, rows, strict=True):
        row[1 : 1 + len(chunk)] = torch.tensor([weight for _, weight in chunk])
    return weights


def _weigh(states: Tensor, weights: Tensor) -> Tensor:
    """Multiply states (N, T, D) by weights (N, T) and give each chunk its mean back.

    Chunk by chunk, so that nothing depends on what else is in the batch.
    """
    if bool((weights == 1).all()):
        return states
    weighed = states * weights[..., None].to(states)
    before = states.float().mean(dim=(1, 2), keepdim=True)
    after = weighed.float().mean(dim=(1, 2), keepdim=True)
    # States without a mean to speak of have none to keep: dividing by it would blow them up.
    least = _LEAST_MEAN * states.float().abs().mean(dim=(1, 2), keepdim=True)
    slight = (before.abs() < least) | (after.abs() < least)
    restored = torch.where(slight, torch.ones_like(after), before / after)
    plain = (weights == 1).all(dim=1).to(states.device)[:, None, None]
    return torch.where(plain, states, weighed * restored.to(states))
