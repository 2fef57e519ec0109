"""Which validation of a run was the best, and how long ago that was."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sd_checkpoint import load_json, save_json
from sd_train.config import TrainerConfig
from sd_train.errors import TrainError

_NAME = "best.json"
_USUAL = ("loss", "l1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Best:
    """The best validation so far by one measure; `since` others have followed it."""

    measure: str
    step: int
    value: float
    since: int = 0


def judged(
    best: Best | None, scalars: Mapping[str, float], step: int, config: TrainerConfig
) -> tuple[Best | None, str]:
    """Hold a validation against the best one: return the best now, and what is to be said.

    By `config.best_by`; where that is measured no longer or not at all, the best stays. What is
    said is one line, or "" while all goes well.
    """
    measure, highest = config.best_by, config.best_is == "highest"
    if measure == "auto":
        measure, highest = next((name for name in _USUAL if name in scalars), ""), False
    if not measure:
        return best, ""
    if measure not in scalars:
        known = ", ".join(scalars) or "nothing"
        return best, f"trainer.best_by = {measure!r} is not measured; a validation tells {known}"
    value = scalars[measure]
    if best is None or best.measure != measure:
        better = math.isfinite(value)
    else:
        better = value > best.value if highest else value < best.value
    if better:
        return Best(measure=measure, step=step, value=value), ""
    if best is None or best.step == step:
        return best, ""
    best = replace(best, since=best.since + 1)
    times = "1 validation" if best.since == 1 else f"{best.since} validations"
    return best, (
        f"step {step}: {measure} has turned {'down' if highest else 'up'} to {value:.4g}; the best "
        f"was {best.value:.4g} at step {best.step}, {times} ago"
    )


def write_best(run_folder: Path, best: Best | None) -> None:
    """Write which checkpoint of a run is the best into its `best.json`, or take that away."""
    if best is None:
        (run_folder / _NAME).unlink(missing_ok=True)
    else:
        noted = {"measure": best.measure, "step": best.step, "value": best.value}
        save_json(run_folder / _NAME, noted)


def read_best(run_folder: Path) -> Best | None:
    """Read that file, None where there is none; raises TrainError where it is another one."""
    path = run_folder / _NAME
    if not path.is_file():
        return None
    try:
        return Best(**load_json(path))
    except TypeError as error:
        raise TrainError(f"{path} is damaged; delete it, and the run goes on without") from error
