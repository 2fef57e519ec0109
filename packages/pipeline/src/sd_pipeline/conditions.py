"""What the UNet is told beside latents and time: text, sizes, classes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from sd_pipeline.class_script import class_script
from sd_pipeline.errors import PipelineError
from sd_pipeline.parts import Parts
from sd_pipeline.record import Record
from sd_pipeline.script import Conditions, Script
from sd_textenc import Conditioning, PromptReport, encode_weighted
from sd_textenc.prompts import EditedPrompt, parse_composition, parse_editing, parse_emphasis
from sd_unet import AddedConditions

# The refiner's own defaults (arXiv:2307.01952): what a picture should and should not look like.
_AESTHETIC_SCORE, _NEGATIVE_AESTHETIC_SCORE = 6.0, 2.5
_NUM_SIZES = 6
_STEPS_TO_CHECK = 100  # enough for every text of a prompt that changes to have its turn


def script(parts: Parts, record: Record, *, dtype: torch.dtype, device: torch.device) -> Script:
    """Read and encode a record's prompts with all their syntax, each text once, on a device.

    Without a negative prompt a model of `zeros_for_empty` gets zeros in its place (SDXL). Without
    guidance (a scale of 1 and one prompt that weighs 1) the negative prompt is not heeded. A model
    that hears no text is told classes in their place, as `class_script` says.
    """
    if parts.text_encoder is None:
        assert parts.classes is not None
        return class_script(parts.classes, record, device)
    prompts = parse_composition(record.prompt)
    weights = tuple(prompt.weight for prompt in prompts)
    guided = record.guidance_scale > 1 or weights != (1.0,)
    edited = [parse_editing(prompt.text) for prompt in prompts]
    if guided:
        edited.insert(0, parse_editing(record.negative_prompt))
    share, others = _blended(record, edited)
    num_rows = len(edited)
    steps = range(1, record.num_steps + 1)
    texts = [
        tuple(prompt.at(step, record.num_steps) for prompt in (*edited, *others)) for step in steps
    ]
    distinct = list(dict.fromkeys(text for row in texts for text in row))
    with clip_skipped(parts, record.clip_skip):
        encoded = encode_weighted(parts.text_encoder, [parse_emphasis(text) for text in distinct])
    stretches: list[tuple[int, Conditions]] = []
    for step, row in zip(steps, texts, strict=True):
        if step > 1 and row == texts[step - 2]:
            stretches[-1] = (step, stretches[-1][1])
            continue
        picked = _picked(encoded, [distinct.index(text) for text in row], dtype)
        if others:
            picked = _mixed(picked, num_rows, share)
        if guided and parts.zeros_for_empty and not record.negative_prompt:
            picked = _first_zeroed(picked)
        told = _with_sizes(parts, record, picked, guided=guided)
        stretches.append((step, _with_class(parts, record, told, guided=guided)))
    return Script(stretches=tuple(stretches), weights=weights, guided=guided)


@contextmanager
def clip_skipped(parts: Parts, number: int) -> Iterator[None]:
    """Let the text encoder leave out `number` last layers more; raises as `check_clip_skip`."""
    check_clip_skip(parts, number)
    if not number:
        yield
        return
    encoder = parts.text
    before = encoder.clip_skip
    encoder.clip_skip = before + number
    try:
        yield
    finally:
        encoder.clip_skip = before


def check_clip_skip(parts: Parts, number: int) -> None:
    """Raise unless the text encoder can leave out `number` last layers more.

    `TextEncoderError` where it has not so many, `PipelineError` where there is none.
    """
    if number:
        encoder = parts.text
        encoder.check_clip_skip(encoder.clip_skip + number)


def check_prompt(parts: Parts, prompt: str) -> PromptReport:
    """Report which words of a prompt the model does not know, and how its syntax was taken.

    Nothing is dropped, for long prompts are encoded in chunks; `num_tokens` is that of the longest
    text that a step is told. Of a model that hears no text there is nothing to report.
    """
    if parts.text_encoder is None:
        return PromptReport(num_tokens=0, dropped="", unknown=())
    texts = [
        text
        for part in parse_composition(prompt)
        for _, text in parse_editing(part.text).schedule(_STEPS_TO_CHECK)
    ]
    parsed = [parse_emphasis(text) for text in texts]
    reports = [parts.text_encoder.check(emphasis.text) for emphasis in parsed]
    return PromptReport(
        num_tokens=max(report.num_tokens for report in reports),
        dropped="",
        unknown=tuple(dict.fromkeys(word for report in reports for word in report.unknown)),
        notes=tuple(dict.fromkeys(note for emphasis in parsed for note in emphasis.notes)),
    )


def _blended(
    record: Record, edited: Sequence[EditedPrompt]
) -> tuple[float, Sequence[EditedPrompt]]:
    """Return how far to go to a blend's prompts, and these, a row for each that there is."""
    blend = record.blend
    if blend is None or blend.prompt is None:
        return 0.0, []
    others = [parse_editing(prompt.text) for prompt in parse_composition(blend.prompt)]
    kept = edited[: len(edited) - len(parse_composition(record.prompt))]
    if len(kept) + len(others) != len(edited):
        raise PipelineError(
            f"{record.prompt!r} and {blend.prompt!r} join different numbers of prompts by AND; "
            "give both as many"
        )
    return blend.share, [*kept, *others]


def _mixed(text: Conditioning, num_rows: int, share: float) -> Conditioning:
    """Go `share` of the way from the first rows (num_rows) to the others."""
    states, pooled = text.hidden_states, text.pooled
    mixed = states[:num_rows].lerp(states[num_rows:], share)
    if pooled is not None:
        pooled = pooled[:num_rows].lerp(pooled[num_rows:], share)
    return Conditioning(hidden_states=mixed, pooled=pooled)


def _picked(encoded: Conditioning, rows: Sequence[int], dtype: torch.dtype) -> Conditioning:
    index = torch.tensor(rows, device=encoded.hidden_states.device)
    pooled = None if encoded.pooled is None else encoded.pooled[index].to(dtype)
    return Conditioning(hidden_states=encoded.hidden_states[index].to(dtype), pooled=pooled)


def _with_sizes(parts: Parts, record: Record, text: Conditioning, *, guided: bool) -> Conditions:
    """Add what SDXL's UNets are told beside the text's states; others are told those alone."""
    if not parts.unet.config.takes_sizes:
        return Conditions(hidden_states=text.hidden_states, added=None)
    assert text.pooled is not None
    num_sizes = parts.unet.config.num_sizes(text.pooled.shape[-1])
    rows = range(len(text.hidden_states))
    sizes = [_sizes(record, num_sizes, negative=guided and row == 0) for row in rows]
    device = text.hidden_states.device
    added = AddedConditions(pooled=text.pooled, sizes=torch.tensor(sizes, device=device))
    return Conditions(hidden_states=text.hidden_states, added=added)


def _with_class(parts: Parts, record: Record, told: Conditions, *, guided: bool) -> Conditions:
    """Add the record's class to its prompts, and none to the negative one, where there are any."""
    classes = parts.classes
    if classes is None or told.hidden_states is None:
        return told
    labels = torch.full((len(told.hidden_states),), classes.null, device=told.hidden_states.device)
    if record.class_name is not None:
        labels[int(guided) :] = classes.number(record.class_name)
    return replace(told, class_labels=labels)


def _first_zeroed(text: Conditioning) -> Conditioning:
    zeros = text.zeroed()
    pooled = None
    if text.pooled is not None and zeros.pooled is not None:
        pooled = torch.cat([zeros.pooled[:1], text.pooled[1:]])
    states = torch.cat([zeros.hidden_states[:1], text.hidden_states[1:]])
    return Conditioning(hidden_states=states, pooled=pooled)


def _sizes(record: Record, number: int, *, negative: bool) -> Sequence[float]:
    """Return SDXL's sizes: as large as is drawn, not cropped; or the refiner's, with its score."""
    size = (float(record.height), float(record.width))
    if number == _NUM_SIZES:
        return (*size, 0.0, 0.0, *size)
    return (*size, 0.0, 0.0, _NEGATIVE_AESTHETIC_SCORE if negative else _AESTHETIC_SCORE)
