"""Prompts that are classes: what a UNet that hears no text is told at every step."""

from collections.abc import Callable

import torch

from sd_pipeline.classes import Classes
from sd_pipeline.errors import PipelineError
from sd_pipeline.record import Record
from sd_pipeline.script import Conditions, Script
from sd_textenc.prompts import parse_composition, parse_editing

_At = Callable[[int], str]
"""What is asked for at a step from 1."""


def class_script(classes: Classes, record: Record, device: torch.device | None = None) -> Script:
    """Read a record's prompts as classes, by name or number; the negative one's default is none.

    Classes are joined by AND and change by step as texts do, where the whole is no class's name.
    Raises `PipelineError` for what is no class, and for a prompt to blend with: there is nothing
    between two classes.
    """
    if record.blend is not None and record.blend.prompt is not None:
        raise PipelineError(
            "this model is told classes, and there is nothing between two of them; blend seeds, or "
            f"join {record.prompt!r} and {record.blend.prompt!r} by AND"
        )
    asked = _joined(classes, record.prompt, record.num_steps)
    weights = tuple(weight for weight, _ in asked)
    guided = record.guidance_scale > 1 or weights != (1.0,)
    rows = [at for _, at in asked]
    if guided:
        rows.insert(0, _edited(classes, record.negative_prompt, record.num_steps))
    stretches: list[tuple[int, tuple[int, ...]]] = []
    for step in range(1, record.num_steps + 1):
        told = tuple(classes.number(at(step)) for at in rows)
        if stretches and stretches[-1][1] == told:
            stretches.pop()
        stretches.append((step, told))
    return Script(
        stretches=tuple(
            (last, Conditions(class_labels=torch.tensor(told, device=device)))
            for last, told in stretches
        ),
        weights=weights,
        guided=guided,
    )


def _joined(classes: Classes, prompt: str, num_steps: int) -> list[tuple[float, _At]]:
    if classes.find(prompt) is not None:  # a name may hold what has a meaning elsewhere
        return [(1.0, lambda _: prompt)]
    return [
        (one.weight, _edited(classes, one.text, num_steps)) for one in parse_composition(prompt)
    ]


def _edited(classes: Classes, text: str, num_steps: int) -> _At:
    if classes.find(text) is not None:
        return lambda _: text
    edited = parse_editing(text)
    return lambda step: edited.at(step, num_steps)
