"""How much of a LoRA a reduction keeps, and how that is told."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdcli.errors import CommandError

if TYPE_CHECKING:
    from torch import Tensor

    from sd_adapters import LoraInfo, Reduction

_PARTS = {
    "lora_unet": "UNet",
    "lora_te": "text encoder",
    "lora_te1": "first text encoder",
    "lora_te2": "second text encoder",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """Hold what of a part's layers is kept: shares (0 to 1) of all together and of the worst."""

    layers: int
    share: float
    least: float
    worst: str


def part_title(prefix: str) -> str:
    """Return what people call a part that kohya calls `lora_unet`."""
    return _PARTS.get(prefix, prefix)


def kept_by_part(tensors: "Mapping[str, Tensor]", energies: Mapping[str, float]) -> dict[str, Kept]:
    """Sum up what a reduction kept, by part: `tensors` as reduced, and each layer's share.

    A layer counts by its energy, the sum of its squared weights.
    """
    by_part: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for name, share in energies.items():
        by_part[part_title("_".join(name.split("_")[:2]))][name] = share
    found = {}
    for part, shares in by_part.items():
        kept = {name: _energy(tensors, name) for name in shares}
        whole = sum(kept[name] / share for name, share in shares.items())
        worst = min(shares, key=lambda name: shares[name])
        found[part] = Kept(
            layers=len(shares),
            share=sum(kept.values()) / whole if whole > 0 else 1.0,
            least=shares[worst],
            worst=worst,
        )
    return found


def kept_lines(kept: Mapping[str, Kept]) -> list[str]:
    """Tell what was kept, a line a part."""
    return [
        f"{part}: {one.share:.2%} kept of {one.layers} layers, {one.least:.2%} at least "
        f"({one.worst})"
        for part, one in kept.items()
    ]


def written_line(out: object, info: "LoraInfo") -> str:
    """Tell in a line what was written."""
    ranks = sorted(info.ranks)
    told = f", ranks {ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else ""
    if len(ranks) == 1:
        told = f", rank {ranks[0]}"
    return f"{out}: {len(info.layers)} layers{told}"


def reduction_words(reduction: "Reduction") -> str:
    """Say what a reduction is, for the header of what it makes."""
    words = []
    if reduction.rank is not None:
        words.append(f"rank {reduction.rank}")
    if reduction.energy is not None:
        words.append(f"energy {reduction.energy:g}")
    return " and ".join(words)


@contextmanager
def finite(what: str) -> Iterator[None]:
    """Raise `CommandError` where a decomposition meets numbers that are none."""
    import torch

    try:
        yield
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # torch hides it
        raise CommandError(
            f"{what} has weights that are infinite or no numbers; it is spoilt, take another file"
        ) from error


def _energy(tensors: "Mapping[str, Tensor]", name: str) -> float:
    """Return the sum of the squares of B A, of scale 1, without making it."""
    down = tensors[f"{name}.lora_down.weight"].flatten(1).double()
    up = tensors[f"{name}.lora_up.weight"].flatten(1).double()
    return float(((up.T @ up) * (down @ down.T)).sum())
