"""Whether the arms computed the same: without that no time of theirs means anything.

In float32 our output may differ from the peer's by rounding alone. In half precision both differ
from what float32 gives, and our error may be at most 1.1 times the peer's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.case import Case
from benchmarks.learning import NUM_CHECKED

OURS, PEER = "ours", "diffusers"

TOLERANCE = 2e-4
"""Of float32 on a CPU: the largest difference over the peer's standard deviation."""

TOLERANCE_TF32 = 2e-2
"""The same on CUDA, where convolutions round to TF32 unless they are told not to."""

TOLERANCE_PICTURES = 1.001 / 255
"""Of float32 pictures, which are whole levels: one of them."""

LOSS, CHANGE = 1e-5, 1e-2
"""Of what was learnt in float32 on a CPU: relative, and root mean square over the deviation.

AdamW's first steps are as long for a small gradient as for a large one: where one is all rounding,
so is the change.
"""

TF32_LOSS, TF32_CHANGE = 1e-3, 0.3
"""The same on CUDA."""

HALF = 1.1
"""How much larger than the peer's our error against float32 may be, root mean square."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Say how near the arms came, and whether ours came near enough.

    `differences` are of each arm to `against`: largest, and root mean square, as they are and over
    the standard deviation. `passed` is None where nothing could be compared, and `rule` says why,
    or by what it was judged.
    """

    against: str
    rule: str
    differences: Mapping[str, Mapping[str, float]]
    passed: bool | None


def read_output(path: Path) -> Tensor:
    """Read what a worker wrote."""
    from safetensors.torch import load_file

    return load_file(path)["output"]


def agreement(case: Case, outputs: Mapping[str, Tensor], reference: Tensor | None) -> Agreement:
    """Compare outputs of the arms; `reference` is the peer's float32 one, for half precision."""
    if OURS not in outputs or PEER not in outputs:
        rule = f"not compared: the arms {OURS} and {PEER} are both needed"
        return Agreement(against="nothing", rule=rule, differences={}, passed=None)
    if case.target == "train":
        return _as_learnt(case, outputs, reference)
    if case.dtype == "fp32":
        return _to_the_peer(case, outputs)
    if reference is None:
        rule = f"not compared: {PEER} gave no fp32 reference"
        return Agreement(against="nothing", rule=rule, differences={}, passed=None)
    differences = {name: difference(output, reference) for name, output in outputs.items()}
    own, its = differences[OURS]["rms"], differences[PEER]["rms"]
    return Agreement(
        against=f"{PEER} in fp32",
        rule=f"rms of {OURS} at most {HALF} x rms of {PEER}",
        differences=differences,
        passed=own <= HALF * its,
    )


def _to_the_peer(case: Case, outputs: Mapping[str, Tensor]) -> Agreement:
    differences = {
        name: difference(output, outputs[PEER]) for name, output in outputs.items() if name != PEER
    }
    if case.target == "txt2img":
        name, limit = "largest", TOLERANCE_PICTURES
    else:
        name, limit = "largest_over_std", TOLERANCE_TF32 if case.on_cuda else TOLERANCE
    return Agreement(
        against=PEER,
        rule=f"{name} of {OURS} at most {limit:.2g}",
        differences=differences,
        passed=differences[OURS][name] <= limit,
    )


def _as_learnt(case: Case, outputs: Mapping[str, Tensor], reference: Tensor | None) -> Agreement:
    """Compare what was learnt: losses, and how the weights have changed."""
    to_peer = case.dtype == "fp32"
    wanted = outputs[PEER] if to_peer else reference
    if wanted is None:
        rule = f"not compared: {PEER} gave no fp32 reference"
        return Agreement(against="nothing", rule=rule, differences={}, passed=None)
    losses, changes = wanted[:NUM_CHECKED], wanted[NUM_CHECKED:]
    differences = {
        name: {
            **difference(output[NUM_CHECKED:], changes),
            "loss": float(((output[:NUM_CHECKED] - losses) / losses).abs().max()),
        }
        for name, output in outputs.items()
        if name != PEER or not to_peer
    }
    own = differences[OURS]
    if not to_peer:
        limit = HALF * differences[PEER]["rms"]
        rule = f"rms of {OURS} at most {HALF} x rms of {PEER}, of the weights' changes"
        return Agreement(
            against=f"{PEER} in fp32",
            rule=rule,
            differences=differences,
            passed=own["rms"] <= limit,
        )
    loss, change = (TF32_LOSS, TF32_CHANGE) if case.on_cuda else (LOSS, CHANGE)
    return Agreement(
        against=PEER,
        rule=f"after {NUM_CHECKED} steps losses within {loss:.2g}, weights' changes, rms over std, "
        f"within {change:.2g}",
        differences=differences,
        passed=own["loss"] <= loss and own["rms_over_std"] <= change,
    )


def difference(output: Tensor, reference: Tensor) -> dict[str, float]:
    """Return how far two tensors of one shape are apart; what is not finite is infinitely far."""
    if output.shape != reference.shape:
        shapes = f"{tuple(output.shape)} and {tuple(reference.shape)}"
        raise ValueError(f"the outputs have shapes {shapes}; they must be equal")
    apart = torch.nan_to_num((output.double() - reference.double()).abs(), nan=torch.inf)
    std = max(float(reference.double().std()), 1e-30)  # of something constant it is nought
    largest, rms = float(apart.max()), float(apart.square().mean().sqrt())
    return {
        "largest": largest,
        "largest_over_std": largest / std,
        "rms": rms,
        "rms_over_std": rms / std,
    }
