"""A text encoder learns to keep what is said of a thing with the thing.

Its states are read by cross-attention, word by word. An encoder that was trained along with a
small denoiser leaves "red" in the state of the word red alone: "a red flower next to a blue turtle"
and "a blue flower next to a red turtle" are the same bag of words, and colours land on either.
Causal attention cannot tell red what it belongs to, but the flower what it is. So a copy of the
encoder says what the words mean, and the encoder learns states in which the flower's has red's too.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sd_pipeline import Parts, load_model, save_model
from sd_textenc import TextTower, Tokenizer
from sd_train.binding_config import TextBindConfig
from sd_train.data_check import find_pictures
from sd_train.errors import TrainError
from sd_train.precision import EXPORT_DTYPES, resolve_device
from sd_train.reporter import Reporter, SilentReporter
from sd_train.task import Batch, Validation
from sd_train.tasks.details import DetailWords, excerpts

_NUM_FOR_MEAN = 2048
WordIds = tuple[Tensor, Tensor, Tensor]
"""The ids of modifiers, of pointers and of words that are skipped."""


class CaptionSource:
    """The captions to learn from, as batches {"token_ids": (B, T)}."""

    def __init__(self, token_ids: Tensor, holdout: int) -> None:
        count = len(token_ids)
        held = torch.zeros(count, dtype=torch.bool)
        held[[index * count // holdout for index in range(holdout)]] = True
        self.held_out, self.training = token_ids[held], token_ids[~held]

    def __len__(self) -> int:
        """Count the captions to learn from."""
        return len(self.training)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:  # noqa: ARG002
        """Gather captions."""
        return {"token_ids": self.training[list(indices)]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """What the words of captions do, by their ids; `neutral` and `pointing` are states (D,).

    These are what the modifiers, and what the pointers have in common, which says nothing.
    """

    modifiers: Tensor
    pointers: Tensor
    skipped: Tensor
    neutral: Tensor
    pointing: Tensor


class TextBindTask:
    """Trains a text encoder towards its own states with what is said of a thing in the thing's."""

    def __init__(
        self, parts: Parts, source: CaptionSource, ids: WordIds, config: TextBindConfig
    ) -> None:
        assert isinstance(parts.text_encoder, TextTower)
        self.parts = parts
        self.source = source
        self.config = config
        self.encoder = parts.text_encoder.requires_grad_(True).train()
        self.teacher = copy.deepcopy(parts.text_encoder).requires_grad_(False).eval()
        self.device = next(self.encoder.parameters()).device
        self.details = _detail_words(ids, parts.text_encoder.tokenizer, config)
        modifiers, pointers, skipped = (each.to(self.device) for each in ids)
        self.words = Words(
            modifiers=modifiers,
            pointers=pointers,
            skipped=skipped,
            neutral=self._mean_state(modifiers),
            pointing=self._mean_state(pointers),
        )

    def modules(self) -> Mapping[str, nn.Module]:
        """Name what learns."""
        return {"text_encoder": self.encoder}

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002
        """Compare the states with those wanted, up to the end of each caption."""
        error, before = self._errors(batch["token_ids"].to(self.device))
        return error, {"left": (error / before).detach()}

    @torch.no_grad()
    def validate(self) -> Validation:
        """Tell the error on held-out captions, and what share of the first one it is."""
        if not len(self.source.held_out):
            return Validation()
        error, before = self._errors(self.source.held_out.to(self.device))
        return Validation(scalars={"loss": float(error), "left": float(error / before)})

    def export(self, folder: Path) -> None:
        """Write the whole model with this text encoder."""
        save_model(folder, self.parts, dtype=EXPORT_DTYPES[self.config.export_dtype])

    def _errors(self, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean squared errors of the encoder's states and of the teacher's."""
        states = self.encoder.encode_tokens(token_ids).hidden_states.float()
        with torch.no_grad():
            plain = self.teacher.encode_tokens(token_ids).hidden_states.float()
            wanted = moved(self._apart(token_ids, plain), token_ids, self.words, self.config)
        ends = (token_ids == self.encoder.tokenizer.eos_token_id).int()
        spoken = ends.cumsum(1) - ends == 0  # the first end included
        error, before = ((one - wanted).square()[spoken].mean() for one in (states, plain))
        return error, before

    def _apart(self, token_ids: Tensor, states: Tensor) -> Tensor:
        """Return the teacher's states (B, T, D) of each word without other details."""
        if self.details is None:
            return states
        told = excerpts(token_ids, self.details, self.encoder.tokenizer.eos_token_id)
        found: Tensor = self.teacher.encode_tokens(told.token_ids).hidden_states.float()
        return found[told.row, told.place]

    @torch.no_grad()
    def _mean_state(self, ids: Tensor) -> Tensor:
        """Return the mean state (D,) of some words in the captions."""
        token_ids = self.source.training[:_NUM_FOR_MEAN].to(self.device)
        states = self.teacher.encode_tokens(token_ids).hidden_states.float()
        return states[torch.isin(token_ids, ids)].mean(0)


def moved(states: Tensor, token_ids: Tensor, words: Words, config: TextBindConfig) -> Tensor:
    """Return states (B, T, D) in which what is said of a thing is in the state of the thing's word.

    `token_ids` (B, T) are the words. Each changed state is as long as it was, for an encoder ends
    in a norm.
    """
    modifies, points, skips = (
        torch.isin(token_ids, ids)[..., None]
        for ids in (words.modifiers, words.pointers, words.skipped)
    )
    said = states - words.neutral
    carried = torch.where(modifies, config.carried * said, 0.0)
    carried = torch.where(points, config.pointed * (states - words.pointing), carried)
    wanted = torch.where(modifies, words.neutral + config.kept * said, states)
    passing = modifies | points | skips
    load = torch.zeros_like(states[:, 0])
    for place in range(states.shape[1]):
        on = passing[:, place]
        wanted[:, place] += torch.where(on, 0.0, load)
        load = torch.where(on, load + carried[:, place], 0.0)
    before, after = (torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (states, wanted))
    same_length: Tensor = wanted * (before / after)
    return same_length


def build_binding_task(config: TextBindConfig, reporter: Reporter | None = None) -> TextBindTask:
    """Load the model and the captions; raises TrainError where a word is not one token."""
    reporter = reporter or SilentReporter()
    parts = load_model(Path(config.model))
    if not isinstance(parts.text_encoder, TextTower):
        raise TrainError(f"model {config.model!r} has no text encoder or two; one can be taught")
    tokenizer = parts.text_encoder.tokenizer
    ids = tuple(
        _ids(tokenizer, words) for words in (config.modifiers, config.pointers, config.skipped)
    )
    captions = [entry.caption for entry in find_pictures(config.data).entries]
    if len(captions) <= config.holdout:
        raise TrainError(
            f"data {config.data!r} has {len(captions)} captions, not more than holdout "
            f"{config.holdout}; add pictures or lower holdout"
        )
    source = CaptionSource(tokenizer(captions), config.holdout)
    for name, each in zip(("modifiers", "pointers"), ids, strict=False):
        if len(each) and not torch.isin(source.training[:_NUM_FOR_MEAN], each).any():
            raise TrainError(f"no caption of {config.data!r} has one of the {name}; name others")
    reporter.message(f"{len(source)} captions to learn from, {len(source.held_out)} held out")
    parts.text_encoder.to(resolve_device(config.trainer.device))
    modifiers, pointers, skipped = ids
    return TextBindTask(parts, source, (modifiers, pointers, skipped), config)


def _detail_words(ids: WordIds, tokenizer: Tokenizer, config: TextBindConfig) -> DetailWords | None:
    if not config.details and not config.apart:
        return None
    openers, details = (_ids(tokenizer, words) for words in (config.openers, config.details))
    modifiers, _, skipped = ids
    return DetailWords(
        openers=frozenset(openers.tolist()),
        details=frozenset(details.tolist()),
        modifiers=frozenset(modifiers.tolist()),
        skipped=frozenset(skipped.tolist()),
        apart=config.apart,
    )


def _ids(tokenizer: Tokenizer, words: Sequence[str]) -> Tensor:
    tokens = {word: tokenizer.tokenize(word) for word in words}
    several = [word for word, ids in tokens.items() if len(ids) != 1]
    if several:
        raise TrainError(f"the word {several[0]!r} is not one token of the model; leave it out")
    return torch.tensor([ids[0] for ids in tokens.values()], dtype=torch.long)
