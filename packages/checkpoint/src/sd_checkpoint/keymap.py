"""Renaming the keys of one checkpoint layout to another's, with rules that are data."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import EinopsError, rearrange
from torch import Tensor

from sd_checkpoint.errors import CheckpointError, name_keys
from sd_checkpoint.lazy import release

__all__ = ["AnyRule", "Fuse", "KeyMap", "Rule", "Split", "beneath"]

_HOLES = {"{}": r"([^.]+)", "{*}": r"(.+)"}
_HOLE = re.compile(r"(\{\}|\{\*\})")


@dataclass(frozen=True, slots=True)
class Rule:
    """Pair a source pattern with a target pattern, and declare how a tensor changes between them.

    `{}` stands for one dot-separated part of a key and `{*}` for one or more parts; both sides
    hold the same holes in the same order. `reshape` is a pair of einops patterns, such as
    ("c_out c_in 1 1", "c_out c_in"), read from source to target; it may move axes and add or drop
    axes of length one, so that it can be read backwards.

        Rule("down.{}.block.{}.{}.{}", "down_blocks.{}.resnets.{}.{}.{}")
        Rule("attn_1.q.weight", "attentions.0.to_q.weight", ("c_out c_in 1 1", "c_out c_in"))
    """

    source: str
    target: str
    reshape: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        assert _HOLE.findall(self.source) == _HOLE.findall(self.target), self

    @property
    def sources(self) -> tuple[str, ...]:
        """The one source pattern."""
        return (self.source,)

    @property
    def targets(self) -> tuple[str, ...]:
        """The one target pattern."""
        return (self.target,)

    def reversed(self) -> "Rule":
        """Return the rule read from target to source."""
        return Rule(self.target, self.source, self.reshape[::-1] if self.reshape else None)

    def beneath(self, source: str, target: str) -> "Rule":
        """Return the rule with a prefix on either side."""
        return Rule(f"{source}.{self.source}", f"{target}.{self.target}", self.reshape)

    def make(self, tensors: tuple[Tensor, ...], part: int) -> Tensor:  # noqa: ARG002 one target
        """Return the target of the source; raises `EinopsError` when `reshape` does not fit."""
        if self.reshape is None:
            return tensors[0]
        source, target = self.reshape
        return rearrange(tensors[0], f"{source} -> {target}")


@dataclass(frozen=True, slots=True)
class Split:
    """Cut a tensor along its first axis into as many equal parts as there are targets.

    Patterns have holes as in `Rule`, the same ones in the source and in every target.

        Split("attn.in_proj_weight", ("q_proj.weight", "k_proj.weight", "v_proj.weight"))
    """

    source: str
    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        for target in self.targets:
            assert _HOLE.findall(self.source) == _HOLE.findall(target), self

    @property
    def sources(self) -> tuple[str, ...]:
        """The one source pattern."""
        return (self.source,)

    def reversed(self) -> "Fuse":
        """Return the rule that joins the parts."""
        return Fuse(self.targets, self.source)

    def beneath(self, source: str, target: str) -> "Split":
        """Return the rule with a prefix on either side."""
        return Split(f"{source}.{self.source}", tuple(f"{target}.{t}" for t in self.targets))

    def make(self, tensors: tuple[Tensor, ...], part: int) -> Tensor:
        """Return the part that becomes target number `part`, a view."""
        whole = tensors[0]
        number = len(self.targets)
        if not whole.ndim or whole.shape[0] % number:
            raise CheckpointError(f"its first axis cannot be cut into {number} equal parts")
        length = whole.shape[0] // number
        return whole[part * length : (part + 1) * length]


@dataclass(frozen=True, slots=True)
class Fuse:
    """Join tensors of one shape along their first axis: a `Split` read backwards."""

    sources: tuple[str, ...]
    target: str

    def __post_init__(self) -> None:
        for source in self.sources:
            assert _HOLE.findall(source) == _HOLE.findall(self.target), self

    @property
    def targets(self) -> tuple[str, ...]:
        """The one target pattern."""
        return (self.target,)

    def reversed(self) -> Split:
        """Return the rule that cuts the joined tensor again."""
        return Split(self.target, self.sources)

    def beneath(self, source: str, target: str) -> "Fuse":
        """Return the rule with a prefix on either side."""
        return Fuse(tuple(f"{source}.{s}" for s in self.sources), f"{target}.{self.target}")

    def make(self, tensors: tuple[Tensor, ...], part: int) -> Tensor:  # noqa: ARG002 one target
        """Return all sources joined."""
        shapes = {tensor.shape for tensor in tensors}
        if len(shapes) > 1 or not tensors[0].ndim:
            raise CheckpointError("it cannot be joined with its siblings: their shapes differ")
        return torch.cat(tensors)


AnyRule = Rule | Split | Fuse


def beneath(source: str, target: str, rules: Iterable[AnyRule]) -> tuple[AnyRule, ...]:
    """Place `rules` beneath a source and a target prefix, which may hold holes themselves.

    Where indices do not correspond one to one (`decoder.up.3` is `up_blocks.0`; `input_blocks.4.0`
    is `down_blocks.1.resnets.0`), call this in a loop over an index table with literal prefixes.
    """
    return tuple(rule.beneath(source, target) for rule in rules)


class _Found(NamedTuple):
    """A key's rule, its number among the rule's sources, and what the holes hold."""

    rule: AnyRule
    number: int
    holes: tuple[str, ...]


class _Origin(NamedTuple):
    """Which keys a target is made of, by which rule, and which of its targets it is."""

    keys: tuple[str, ...]
    rule: AnyRule
    part: int


class KeyMap:
    """Rename keys and reshape tensors by the first rule that has a source pattern that fits.

    How to write one for a network (see `sd_vae.ldm_key_map` for a whole example):

        RESNET = (Rule("in_layers.0.{}", "norm1.{}"), Rule("in_layers.2.{}", "conv1.{}"), ...)
        rules = []
        for index, (block, layer) in enumerate(table):            # an explicit index table
            rules += beneath(f"input_blocks.{index}.0", f"down_blocks.{block}.resnets.{layer}",
                             RESNET)
            rules += beneath(f"input_blocks.{index}.1", f"down_blocks.{block}.attentions.{layer}",
                             (Rule("{*}", "{*}"),))               # same names below: hand through
        return KeyMap(rules)

    Put a special rule before the general one that would also fit. A map is total: a key that no
    rule fits is an error, and so are two keys that get one name. `inverse()` is the same rules
    read from right to left.
    """

    def __init__(self, rules: Iterable[AnyRule]) -> None:
        self.rules = tuple(rules)
        self._patterns = tuple(
            (_regex(source), rule, number)
            for rule in self.rules
            for number, source in enumerate(rule.sources)
        )

    def rename(self, key: str) -> str:
        """Return the target name of `key`, the first one where it is cut into several.

        Raises `CheckpointError` when no rule fits.
        """
        found = self._find(key)
        if found is None:
            raise CheckpointError(
                f"no rule renames the key {key}; the file is of another model family"
            )
        return _filled(found.rule.targets[0], found.holes)

    def apply(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the tensors under their target names; each is read and reshaped when asked for.

        Raises `CheckpointError` listing the keys that fail; a tensor whose shape its rule cannot
        take raises when it is read.
        """
        found = {key: self._find(key) for key in tensors}
        unmatched = [key for key, one in found.items() if one is None]
        if unmatched:
            raise CheckpointError(
                f"{len(unmatched)} of {len(tensors)} keys fit no rule, the file is of another "
                f"model family: {name_keys(unmatched)}"
            )
        origins: dict[str, _Origin] = {}
        for key, one in found.items():
            assert one is not None
            keys = tuple(_filled(source, one.holes) for source in one.rule.sources)
            for part, target in enumerate(one.rule.targets):
                name = _filled(target, one.holes)
                origin = _Origin(keys, one.rule, part)
                if origins.setdefault(name, origin) != origin or key not in keys:
                    raise CheckpointError(f"two keys are renamed to {name}, one of them is {key}")
        _require_siblings(tensors, origins)
        return _Renamed(tensors, origins)

    def inverse(self) -> "KeyMap":
        """Return the map from target names and shapes back to the source's."""
        return KeyMap(rule.reversed() for rule in self.rules)

    def _find(self, key: str) -> _Found | None:
        for pattern, rule, number in self._patterns:
            match = pattern.fullmatch(key)
            if match:
                return _Found(rule, number, match.groups())
        return None


class _Renamed(Mapping[str, Tensor]):
    """Tensors under the names that a map gives them."""

    def __init__(self, tensors: Mapping[str, Tensor], origins: Mapping[str, _Origin]) -> None:
        self._tensors = tensors
        self._origins = origins

    def release(self) -> bool:
        """Let go of the memory behind the tensors: see `sd_checkpoint.lazy.release`."""
        return release(self._tensors)

    def __getitem__(self, name: str) -> Tensor:
        keys, rule, part = self._origins[name]
        sources = tuple(self._tensors[key] for key in keys)
        try:
            return rule.make(sources, part)
        except CheckpointError as error:
            raise CheckpointError(f"{_shape(keys[0], sources[0])}; {error}") from error
        except EinopsError as error:
            assert isinstance(rule, Rule)
            assert rule.reshape is not None
            raise CheckpointError(
                f"{_shape(keys[0], sources[0])}, its layout here is ({rule.reshape[0]}); "
                f"the file is of another model family"
            ) from error

    def __contains__(self, name: object) -> bool:
        return name in self._origins

    def __iter__(self) -> Iterator[str]:
        return iter(self._origins)

    def __len__(self) -> int:
        return len(self._origins)


def _require_siblings(tensors: Mapping[str, Tensor], origins: Mapping[str, _Origin]) -> None:
    there = set(tensors)  # asking a mapping whether it has a key may read the tensor
    absent = {key for origin in origins.values() for key in origin.keys if key not in there}
    if absent:
        raise CheckpointError(
            f"{len(absent)} keys are missing that others are to be joined with: {name_keys(absent)}"
        )


def _shape(key: str, tensor: Tensor) -> str:
    return f"{key} has shape {tuple(tensor.shape)}"


def _filled(pattern: str, holes: tuple[str, ...]) -> str:
    return _HOLE.sub("{}", pattern).format(*holes)


def _regex(pattern: str) -> re.Pattern[str]:
    parts = _HOLE.split(pattern)
    return re.compile("".join(_HOLES.get(part, re.escape(part)) for part in parts))
