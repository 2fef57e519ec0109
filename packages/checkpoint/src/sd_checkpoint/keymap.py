"""Renaming the keys of one checkpoint layout to another's, with rules that are data."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from einops import EinopsError, rearrange
from torch import Tensor

from sd_checkpoint.errors import CheckpointError, name_keys

__all__ = ["KeyMap", "Rule", "beneath"]

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

    def reversed(self) -> "Rule":
        """Return the rule read from target to source."""
        return Rule(self.target, self.source, self.reshape[::-1] if self.reshape else None)


def beneath(source: str, target: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Place `rules` beneath a source and a target prefix, which may hold holes themselves.

    Where indices do not correspond one to one (`decoder.up.3` is `up_blocks.0`; `input_blocks.4.0`
    is `down_blocks.1.resnets.0`), call this in a loop over an index table with literal prefixes.
    """
    return tuple(Rule(f"{source}.{r.source}", f"{target}.{r.target}", r.reshape) for r in rules)


class KeyMap:
    """Rename keys and reshape tensors by the first rule whose source pattern fits.

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

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._patterns = tuple((_regex(rule.source), rule) for rule in self.rules)

    def rename(self, key: str) -> str:
        """Return the target name of `key`; raises `CheckpointError` when no rule fits."""
        found = self._find(key)
        if found is None:
            raise CheckpointError(
                f"no rule renames the key {key}; the file is of another model family"
            )
        return found[0]

    def apply(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename and reshape every tensor; raises `CheckpointError` listing the keys that fail."""
        unmatched = [key for key in tensors if self._find(key) is None]
        if unmatched:
            raise CheckpointError(
                f"{len(unmatched)} of {len(tensors)} keys fit no rule, the file is of another "
                f"model family: {name_keys(unmatched)}"
            )
        renamed: dict[str, Tensor] = {}
        for key, tensor in tensors.items():
            found = self._find(key)
            assert found is not None
            name, rule = found
            if name in renamed:
                raise CheckpointError(f"two keys are renamed to {name}, one of them is {key}")
            renamed[name] = _reshaped(key, tensor, rule)
        return renamed

    def inverse(self) -> "KeyMap":
        """Return the map from target names and shapes back to the source's."""
        return KeyMap(rule.reversed() for rule in self.rules)

    def _find(self, key: str) -> tuple[str, Rule] | None:
        for pattern, rule in self._patterns:
            match = pattern.fullmatch(key)
            if match:
                return _HOLE.sub("{}", rule.target).format(*match.groups()), rule
        return None


def _regex(pattern: str) -> re.Pattern[str]:
    parts = _HOLE.split(pattern)
    return re.compile("".join(_HOLES.get(part, re.escape(part)) for part in parts))


def _reshaped(key: str, tensor: Tensor, rule: Rule) -> Tensor:
    if rule.reshape is None:
        return tensor
    source, target = rule.reshape
    try:
        return rearrange(tensor, f"{source} -> {target}")
    except EinopsError as error:
        raise CheckpointError(
            f"{key} has shape {tuple(tensor.shape)}, its layout here is ({source}); "
            f"the file is of another model family"
        ) from error
