"""A subject described in words that a model knows, found by how well it denoises with them.

A diffusion model tells what a picture shows by what it was told (Li et al., arXiv:2303.16203): of
several texts the one that fits has the lowest loss at the same noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import sqrt

from torch import Tensor

from sd_train.data import PictureFolder
from sd_train.finetune_base import Base
from sd_train.finetune_config import TextualInversionConfig
from sd_train.precision import autocast
from sd_train.reporter import SilentReporter
from sd_train.tasks.denoising import Denoising

_LOOKS, _CHUNK = 64, 16
_ROUNDS = 2
_SURE = 2.0  # standard errors of the difference


def describe_subject(
    base: Base[TextualInversionConfig],
    folder: PictureFolder,
    captions: Callable[[str], Sequence[str]],
) -> str:
    """Return the noun with those of `config.described`'s words that fit the training pictures.

    `captions` puts a description into the captions of all pictures. Of adjectives and each detail
    the best is taken, given the others, unless the loss is lower for sure with none; and then once
    more, given what came after.
    """
    config, quiet = base.config, replace(base, reporter=SilentReporter())
    denoising = Denoising(base.parts, config.objective)
    places = sorted(set(folder.training))[:_LOOKS]
    known: dict[str, Tensor] = {}

    def losses(words: Sequence[str]) -> Tensor:
        text = described(config.noun, words)
        if text not in known:
            source = quiet.source(folder, [[each] for each in captions(text)], live=True)
            batches, repeats = source.fixed_batches(places), max(1, _LOOKS // len(places))
            with autocast(config.trainer.precision, base.device):
                known[text] = denoising.held_out_losses(batches, chunk=_CHUNK, repeats=repeats)[1]
        return known[text]

    choices = (config.described.adjectives, *config.described.details)
    words = [""] * len(choices)
    base.reporter.message(f"describing it, from {config.noun!r} on")
    for _ in range(_ROUNDS):
        before = list(words)
        for place, offered in enumerate(choices):
            if not offered:
                continue
            tried = [[*words[:place], word, *words[place + 1 :]] for word in ("", *offered)]
            none, best = tried[0], min(tried[1:], key=lambda each: float(losses(each).mean()))
            words = none if _surely_less(losses(none), losses(best)) else best
            text, loss = described(config.noun, words), float(losses(words).mean())
            base.reporter.message(f"described as {text!r}: loss {loss:.4f}, {len(known)} tried")
        if words == before:
            break
    return described(config.noun, words)


def described(noun: str, words: Sequence[str]) -> str:
    """Put words to a noun: the first in front, of the others those that are not empty behind.

    ``described("dog", ["white", "brown patches", "", "one ear up"])`` is "white dog with brown
    patches and one ear up".
    """
    adjective, *details = words
    told = " and ".join(detail for detail in details if detail)
    return f"{adjective} {noun}{f' with {told}' if told else ''}".strip()


def _surely_less(losses: Tensor, others: Tensor) -> bool:
    won = others - losses
    return float(won.mean()) > _SURE * float(won.std()) / sqrt(len(won))
