"""What a picture's file says of how it was made, whichever program made it."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sd_checkpoint.strict_json import parse_json
from sd_pipeline.errors import PipelineError
from sd_pipeline.file_texts import RECORD_KEY, SHEET_KEY, read_texts
from sd_pipeline.picture_format import PictureFormat
from sd_pipeline.record import Record
from sd_pipeline.typed_values import read_values

_MAX_DEPTH = 64
_MAX_LINE = 2**20
# A setting of the web UI's last line: a name, a colon, a value that may be quoted. Names without a
# limit, and quantifiers that give back what they took, would take the square of a line's length.
_SETTING = re.compile(r'(?<!\w)(\w[\w /-]{1,80}):\s*("(?:\\.|[^\\"])++"|[^,]*)(?:,|$)')
# A text of JSON, which is passed over, or one of the numbers that JSON does not have.
_CONSTANT = re.compile(r'("(?:[^"\\]++|\\.)*+")|-?\b(?:NaN|Infinity)\b')


@dataclass(frozen=True, kw_only=True, slots=True)
class Metadata:
    """Hold what a file says: the program, its settings by name, and our record where it is ours.

    `pixels` is the SHA-256 of the pixels that were drawn, and `encoding` how they were written,
    where the file tells: unless that is lossless the file's own pixels are others.
    """

    program: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    record: Record | None = None
    pixels: str | None = None
    encoding: PictureFormat | None = None


def read_metadata(path: Path) -> Metadata:
    """Read what a picture's file says of itself: ours, the web UI's, ComfyUI's, InvokeAI's.

    Raises `PipelineError` when it is no picture, or says nothing that is known.
    """
    readers = {
        RECORD_KEY: _ours,
        SHEET_KEY: _our_sheet,
        "invokeai_metadata": _invoke,
        "sd-metadata": _invoke,
        "Dream": _dream,
        "prompt": _comfy,
        "workflow": _comfy_workflow,
        "parameters": _web_ui,
    }
    texts = read_texts(path, readers)
    for key, read in readers.items():
        if key in texts:
            try:
                return read(texts[key])
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise PipelineError(f"{path}: its {key} cannot be read ({error!r:.120})") from error
    raise PipelineError(f"{path} does not say how it was made")


def parse_parameters(text: str) -> dict[str, Any]:
    """Read the web UI's `parameters`: the prompts, and the settings of its last line."""
    *lines, last = text.strip().split("\n")
    found = _SETTING.findall(last) if len(last) <= _MAX_LINE else []
    if len(found) < 3:  # the web UI's own rule: fewer are part of a prompt
        lines, found = [*lines, last], []
    prompt: list[str] = []
    negative: list[str] = []
    in_negative = False
    for line in lines:
        if line.startswith("Negative prompt:"):
            in_negative, line = True, line.removeprefix("Negative prompt:").removeprefix(" ")
        (negative if in_negative else prompt).append(line)
    settings = {name.strip(): _unquoted(value.strip()) for name, value in found}
    return {"Prompt": "\n".join(prompt), "Negative prompt": "\n".join(negative), **settings}


def _ours(text: str) -> Metadata:
    values = _object(text)
    pixels, encoding = values.pop("pixels", None), values.pop("encoding", None)
    if not isinstance(pixels, str | None):
        raise ValueError("its pixels are no hash")
    return Metadata(
        program="sdcli",
        settings=values,
        record=Record.from_values(values),
        pixels=pixels,
        encoding=None if encoding is None else read_values(PictureFormat, encoding),
    )


def _our_sheet(text: str) -> Metadata:
    """Tell the settings of a sheet's first picture, and what varies from one to the next."""
    return Metadata(program="sdcli grid", settings=parse_parameters(text))


def _web_ui(text: str) -> Metadata:
    return Metadata(program="the web UI", settings=parse_parameters(text))


def _invoke(text: str) -> Metadata:
    return Metadata(program="InvokeAI", settings=_object(text))


def _dream(text: str) -> Metadata:
    """Tell the command line that InvokeAI was given in its first year."""
    return Metadata(program="InvokeAI", settings={"Dream": text})


def _comfy(text: str) -> Metadata:
    """Pick what a picture hangs on out of ComfyUI's graph: samplers' inputs, texts, models."""
    settings: dict[str, Any] = {}
    for number, node in _graph(text).items():
        for name, value in _plain_inputs(node):
            settings[f"{node['class_type']} {number}: {name}"] = value
    return Metadata(program="ComfyUI", settings=settings)


def _comfy_workflow(text: str) -> Metadata:
    """Tell what stands in the boxes of ComfyUI's window: it is all that a `workflow` knows."""
    settings = {
        f"{node['type']} {node['id']}": node["widgets_values"]
        for node in _graph(text)["nodes"]
        if node.get("widgets_values")
    }
    return Metadata(program="ComfyUI", settings=settings)


def _graph(text: str) -> dict[str, Any]:
    # ComfyUI writes NaN for what is to be drawn anew each time; its own readers take it as null.
    return _object(_CONSTANT.sub(lambda found: found[1] or "null", text))


def _plain_inputs(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in node["inputs"].items():
        if not isinstance(value, list):  # a list is a wire to another node
            yield name, value


def _object(text: str) -> dict[str, Any]:
    value = parse_json(text.encode())
    if not isinstance(value, dict):
        raise ValueError(f"it is a JSON {type(value).__name__}, not an object")
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        if any(isinstance(one, float) and not math.isfinite(one) for one in level):
            raise ValueError("it has a number beyond all sense")
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:  # Python would stop at some depth of its own, wherever the value is used next
        raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")
    return value


def _unquoted(value: str) -> str:
    if not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return str(parse_json(value.encode()))
    except ValueError:  # no JSON after all, but a value with quotes around it
        return value
