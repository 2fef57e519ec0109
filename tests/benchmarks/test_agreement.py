"""When two arms computed the same, and when they did not."""

from dataclasses import replace

import pytest
import torch

from benchmarks.agreement import TOLERANCE, agreement, difference
from benchmarks.case import Case

CASE = Case(target="step", folder="", width=64, height=64)
HALF = Case(target="step", folder="", width=64, height=64, dtype="bf16")
TRUE = torch.randn(4096, generator=torch.Generator().manual_seed(1))
NOISE = torch.randn(4096, generator=torch.Generator().manual_seed(2))


def test_a_difference_is_told_as_it_is_and_over_the_standard_deviation() -> None:
    found = difference(torch.tensor([1.0, 2.0, 3.5]), torch.tensor([1.0, 2.0, 3.0]))
    assert found["largest"] == 0.5
    assert found["largest_over_std"] == pytest.approx(0.5)
    assert found["rms"] == pytest.approx(0.5 / 3**0.5)


def test_what_is_not_finite_is_infinitely_far_from_everything() -> None:
    assert difference(torch.tensor([torch.nan, 1.0]), torch.tensor([0.0, 1.0]))["largest"] > 1e300


def test_outputs_of_two_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match="must be equal"):
        difference(torch.zeros(2), torch.zeros(3))


@pytest.mark.parametrize(("share", "passed"), [(0.5, True), (2.0, False)])
def test_float32_agrees_within_the_tolerance_and_no_further(share: float, passed: bool) -> None:
    ours = TRUE.clone()
    ours[0] += share * TOLERANCE * TRUE.std()
    found = agreement(CASE, {"ours": ours, "diffusers": TRUE}, None)
    assert found.passed is passed


@pytest.mark.parametrize(("share", "passed"), [(1.05, True), (1.2, False)])
def test_half_precision_may_err_a_tenth_more_than_the_peer(share: float, passed: bool) -> None:
    outputs = {"ours": TRUE - share * 0.01 * NOISE, "diffusers": TRUE + 0.01 * NOISE}
    assert agreement(HALF, outputs, TRUE).passed is passed


def test_other_arms_are_told_of_but_not_judged() -> None:
    outputs = {"ours": TRUE, "diffusers": TRUE, "openvino": TRUE + 1}
    found = agreement(CASE, outputs, None)
    assert found.passed
    assert found.differences["openvino"]["largest"] > 0.9


def test_without_the_peer_nothing_is_judged() -> None:
    assert agreement(CASE, {"ours": TRUE}, None).passed is None


@pytest.mark.parametrize(("levels", "passed"), [(1, True), (2, False)])
def test_float32_pictures_may_differ_by_one_level(levels: int, passed: bool) -> None:
    case = Case(target="txt2img", folder="", width=64, height=64)
    peers = torch.full((1, 8, 8, 3), 100.0) / 255
    ours = peers.clone()
    ours[0, 0, 0, 0] = (100.0 + levels) / 255
    assert agreement(case, {"ours": ours, "diffusers": peers}, None).passed is passed


LEARNT = Case(target="train", folder="", width=64, height=64)


@pytest.mark.parametrize(
    ("loss", "change", "passed"), [(1e-6, 1e-4, True), (1e-4, 1e-4, False), (1e-6, 0.1, False)]
)
def test_what_was_learnt_is_losses_and_changes_of_weights(
    loss: float, change: float, passed: bool
) -> None:
    ours = torch.cat([TRUE[:2] * (1 + loss), TRUE[2:] + change * NOISE[2:] * TRUE.std()])
    found = agreement(LEARNT, {"ours": ours, "diffusers": TRUE}, None)
    assert found.passed is passed
    assert found.differences["ours"]["loss"] == pytest.approx(loss, rel=0.2)


@pytest.mark.parametrize(("share", "passed"), [(1.05, True), (1.2, False)])
def test_in_half_precision_changes_may_err_a_tenth_more_than_the_peers(
    share: float, passed: bool
) -> None:
    outputs = {"ours": TRUE - share * 0.01 * NOISE, "diffusers": TRUE + 0.01 * NOISE}
    assert agreement(replace(LEARNT, dtype="bf16"), outputs, TRUE).passed is passed
