"""What a picture's file says of how it was made, whichever program made it."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from sd_pipeline.errors import PipelineError
from sd_pipeline.record import Record

RECORD_KEY = "sd-record"
PARAMETERS_KEY = "parameters"
XMP_KEY = "XML:com.adobe.xmp"
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    "Iptc4xmpExt:DigitalSourceType="
    '"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
"""IPTC's mark of a picture that a trained model made, as XMP."""

_USER_COMMENT, _EXIF_IFD = 0x9286, 0x8769
# A setting of the web UI's last line: a name, a colon, a value that may be quoted.
_SETTING = re.compile(r'\s*([\w /-]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


@dataclass(frozen=True, kw_only=True, slots=True)
class Metadata:
    """Hold what a file says: the program, its settings by name, and our record where it is ours.

    `pixels` is the SHA-256 of the pixels that were written, where the file tells.
    """

    program: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    record: Record | None = None
    pixels: str | None = None


def read_metadata(path: Path) -> Metadata:
    """Read what a picture's file says of itself: ours, the web UI's, ComfyUI's, InvokeAI's.

    Raises `PipelineError` when it is no picture, or says nothing that is known.
    """
    texts = _texts(path)
    for key, read in (
        (RECORD_KEY, _ours),
        ("invokeai_metadata", _invoke),
        ("sd-metadata", _invoke),
        ("prompt", _comfy),
        (PARAMETERS_KEY, _web_ui),
    ):
        if key in texts:
            try:
                return read(texts[key])
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise PipelineError(f"{path}: its {key} cannot be read ({error!r:.80})") from error
    raise PipelineError(f"{path} does not say how it was made")


def parse_parameters(text: str) -> dict[str, Any]:
    """Read the web UI's `parameters`: the prompts, and the settings of its last line."""
    *lines, last = text.strip().split("\n")
    found = _SETTING.findall(last)
    if len(found) < 3:  # the web UI's own rule: fewer are part of a prompt
        lines, found = [*lines, last], []
    prompt: list[str] = []
    negative: list[str] = []
    in_negative = False
    for line in lines:
        if line.startswith("Negative prompt:"):
            in_negative, line = True, line.removeprefix("Negative prompt:").strip()
        (negative if in_negative else prompt).append(line)
    settings = {name.strip(): _unquoted(value.strip()) for name, value in found}
    return {"Prompt": "\n".join(prompt), "Negative prompt": "\n".join(negative), **settings}


def _texts(path: Path) -> dict[str, str]:
    try:
        with Image.open(path) as image:
            image.load()  # texts may stand after the pixels
            texts = {k: str(v) for k, v in getattr(image, "text", {}).items()}
            comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    except FileNotFoundError as error:
        raise PipelineError(f"{path} does not exist; name a picture") from error
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        raise PipelineError(f"{path} is no picture that can be read") from error
    if isinstance(comment, bytes) and comment.startswith(b"UNICODE\0"):
        texts.setdefault(PARAMETERS_KEY, comment[8:].decode("utf-16-be", "replace"))
    return texts


def _ours(text: str) -> Metadata:
    values = json.loads(text)
    pixels = values.pop("pixels", None)
    return Metadata(
        program="sdcli", settings=values, record=Record.from_values(values), pixels=pixels
    )


def _web_ui(text: str) -> Metadata:
    return Metadata(program="the web UI", settings=parse_parameters(text))


def _invoke(text: str) -> Metadata:
    return Metadata(program="InvokeAI", settings=dict(json.loads(text)))


def _comfy(text: str) -> Metadata:
    """Pick what a picture hangs on out of ComfyUI's graph: samplers' inputs, texts, models."""
    settings: dict[str, Any] = {}
    for number, node in json.loads(text).items():
        for name, value in _plain_inputs(node):
            settings[f"{node['class_type']} {number}: {name}"] = value
    return Metadata(program="ComfyUI", settings=settings)


def _plain_inputs(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in node["inputs"].items():
        if not isinstance(value, list):  # a list is a wire to another node
            yield name, value


def _unquoted(value: str) -> str:
    return str(json.loads(value)) if value.startswith('"') and value.endswith('"') else value
