"""The ways to compute that are compared, by name."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from torch import Tensor, nn

from benchmarks.case import Case
from benchmarks.inputs import Inputs

Run = Callable[[], Tensor]


class CannotRun(Exception):  # noqa: N818  (it is no fault)
    """Say in one line why an arm is left out here."""


class Arm(Protocol):
    """One way to compute, in a process of its own."""

    def imports(self, case: Case) -> None:
        """Import all that loading will need, for imports are timed apart from it."""
        ...

    def load(self, case: Case) -> Sequence[nn.Module]:
        """Load what the target needs and return it; raises `CannotRun`."""
        ...

    def prepare(self, case: Case, inputs: Inputs) -> Run:
        """Return what is timed: each call computes the target once, anew."""
        ...


@dataclass(frozen=True, slots=True)
class _Place:
    """Say where an arm lives, and which packages it needs."""

    module: str
    kind: str
    needs: tuple[str, ...]


_PLACES: Mapping[str, _Place] = MappingProxyType(
    {
        "ours": _Place("benchmarks.ours", "Ours", ("sd_pipeline",)),
        "diffusers": _Place("benchmarks.peers", "Diffusers", ("diffusers",)),
        "diffusers-compiled": _Place("benchmarks.peers", "DiffusersCompiled", ("diffusers",)),
        "ours-compiled": _Place("benchmarks.ours", "OursCompiled", ("sd_pipeline",)),
        "ours-graphs": _Place("benchmarks.ours", "OursGraphs", ("sd_pipeline",)),
        "ours-openvino": _Place("benchmarks.ours", "OursOpenVINO", ("sd_pipeline", "openvino")),
        "openvino": _Place("benchmarks.openvino_peer", "OpenVINO", ("diffusers", "openvino")),
    }
)


_LEARNING: Mapping[str, _Place] = MappingProxyType(
    {
        "ours": _Place("benchmarks.ours_training", "OursLearning", ()),
        "diffusers": _Place("benchmarks.scripts_peer", "Scripts", ()),
    }
)


def missing(name: str) -> str | None:
    """Return in one line what an arm needs that is not installed; None where nothing is missing."""
    gaps = [need for need in _PLACES[name].needs if importlib.util.find_spec(need) is None]
    return f"{', '.join(gaps)} is not installed" if gaps else None


def make_arm(name: str, target: str = "") -> Arm:
    """Import an arm, in the process that it will have for itself; raises `CannotRun`."""
    if target == "train" and name not in _LEARNING:
        raise CannotRun("the scripts that ours is compared with train without it")
    place = _LEARNING[name] if target == "train" else _PLACES[name]
    arm: Arm = getattr(importlib.import_module(place.module), place.kind)()
    return arm
