"""`sdcli grid`: pictures for every value of one, two or three settings, on one sheet."""

import csv
import re
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from sdcli.drawing import Drawn, check_place, draw
from sdcli.errors import CommandError
from sdcli.grouping import grouped
from sdcli.option_groups import ModelOptions, OutputOptions, PromptOptions, SamplingOptions
from sdcli.options import PROMPT_HELP, Height, Width
from sdcli.prompt_lines import number_in, setting
from sdcli.seeds import choose_seed
from sdcli.sheets import sheet, stacked

_AXES = ("steps", "sampler", "schedule", "guidance", "guidance-rescale", "threshold", "pag",
         "pag-adaptive", "seed", "width", "height", "negative", "seamless", "clip-skip",
         "reuse-features", "merge-tokens", "class", "prompt")  # fmt: skip
# Those that are fields of a request's guidance.
_OF_GUIDANCE = {
    "guidance-rescale": "rescale",
    "threshold": "threshold",
    "pag": "pag_scale",
    "pag-adaptive": "pag_adaptive_scale",
}
_WEB_UI_NAMES = {"prompt": "Prompt S/R", "guidance": "CFG Scale", "schedule": "Schedule type"}
_RANGE = re.compile(r"(-?\d+)-(\d+)(?:\(\+(\d+)\))?")
_MAX_CELLS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """Hold a setting and the values that it takes; no name is an axis that is not there."""

    name: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str | None) -> "Axis":
        """Read `steps=10,20`, `seed=1-9(+2)` or `prompt=red,blue`; raises `CommandError`."""
        if text is None:
            return cls(name="", values=("",))
        name, equals, values = text.partition("=")
        if not equals or name not in _AXES:
            raise CommandError(
                f"the axis {text!r} must be NAME=VALUE,VALUE with a name of {', '.join(_AXES)}"
            )
        (row,) = csv.reader([values], skipinitialspace=True)
        spread = tuple(one for value in row for one in _spread(value.strip()))
        if not all(spread) or not spread:
            raise CommandError(f"the axis {text!r} has an empty value")
        return cls(name=name, values=spread)

    def script(self, letter: str) -> dict[str, str]:
        """Return what the web UI's grids say of an axis, as that of X, Y or Z."""
        if not self.name:
            return {}
        return {
            f"{letter} Type": _WEB_UI_NAMES.get(self.name, self.name.capitalize()),
            f"{letter} Values": ",".join(_listed(value) for value in self.values),
        }

    def labels(self) -> list[str]:
        """Return what to write beside each value."""
        if self.name == "prompt":
            return list(self.values)
        return [f"{self.name} {value}" if self.name else "" for value in self.values]

    def change(self, settings: dict[str, Any], value: str) -> dict[str, Any]:
        """Return settings with this axis at a value.

        In a prompt the axis's first value is replaced by the others, as the web UI's "Prompt S/R".
        """
        if not self.name:
            return settings
        if self.name == "prompt":
            return {**settings, "prompt": settings["prompt"].replace(self.values[0], value)}
        if self.name in _OF_GUIDANCE:
            share = number_in(value, float, f"the axis {self.name}")
            changed = replace(settings["guidance"], **{_OF_GUIDANCE[self.name]: share})
            return {**settings, "guidance": changed}
        name, number = setting(self.name, value, f"the axis {self.name}")
        return {**settings, name: number}


@grouped
def grid(
    prompt: Annotated[str, typer.Argument(help=PROMPT_HELP)],
    sampling: SamplingOptions,
    prompts: PromptOptions,
    output: OutputOptions,
    model: ModelOptions,
    x: Annotated[
        str | None,
        typer.Option(
            "--x",
            help="Setting and values from left to right: steps=10,20,30 or steps=10-30(+10), "
            "sampler=euler,ddim; of steps, sampler, schedule, guidance, guidance-rescale, "
            "threshold, pag, pag-adaptive, seed, width, height, negative, seamless, clip-skip, "
            "reuse-features, merge-tokens, class, prompt. prompt=red,blue writes blue where the "
            "prompt says red.",
        ),
    ] = None,
    y: Annotated[str | None, typer.Option("--y", help="The same, from top to bottom.")] = None,
    z: Annotated[str | None, typer.Option("--z", help="The same, sheet below sheet.")] = None,
    sheet_file: Annotated[
        Path | None,
        typer.Option("--sheet", help="The sheet's .png file. [default: grid-NNNNN.png in --out]"),
    ] = None,
    width: Width = None,
    height: Height = None,
) -> None:
    """Draw a picture for every value of some settings, and lay them out with labels.

    Every picture is a file of its own, too. Without a --seed all have the same random one.
    """
    from sd_pipeline import Txt2Img

    axes = [Axis.parse(text) for text in (z, y, x)]
    if not any(axis.name for axis in axes):
        raise CommandError("there is nothing to vary: give --x, --y or --z")
    _check_axes(axes, prompt)
    settings = {
        **sampling.settings(seed=choose_seed(sampling.seed, 1)),
        "prompt": prompt,
        "width": width,
        "height": height,
    }
    requests = []
    for values in product(*(axis.values for axis in axes)):
        changed = settings
        for axis, value in zip(axes, values, strict=True):
            changed = axis.change(changed, value)
        requests.append(Txt2Img(**changed))
    path = _sheet_path(sheet_file, output.out)
    check_place(path, "--sheet")

    def finish(drawn: Drawn) -> None:
        _write_sheet(drawn, axes, path)
        drawn.more["sheet"] = str(path)
        if not output.json:
            print(path)

    draw(requests, model.chosen(), output, prompts, finish=finish)


def _check_axes(axes: list[Axis], prompt: str) -> None:
    number = 1
    for axis in axes:
        number *= len(axis.values)
        if axis.name == "prompt" and axis.values[0] not in prompt:
            raise CommandError(
                f"the prompt {prompt!r} does not hold {axis.values[0]!r}, the first of the axis's "
                "values, which the others replace"
            )
    if number > _MAX_CELLS:
        raise CommandError(f"that makes {number} pictures; {_MAX_CELLS} are allowed")


def _sheet_path(path: Path | None, out: Path) -> Path:
    if path is not None:
        if path.suffix.lower() != ".png":
            raise CommandError(f"--sheet {path} must end in .png")
        return path
    if out.suffix:
        raise CommandError(f"--out {out} is one file for many pictures; name a folder")
    number = 1
    while (out / f"grid-{number:05d}.png").exists():
        number += 1
    return out / f"grid-{number:05d}.png"


def _write_sheet(drawn: Drawn, axes: list[Axis], path: Path) -> None:
    from sd_checkpoint import atomic_path
    from sd_pipeline import sheet_bytes

    z, y, x = axes
    images = iter([picture.image for picture in drawn.pictures])
    sheets = []
    for z_label in z.labels():
        rows = [[next(images) for _ in x.values] for _ in y.values]
        labels = [f"{z_label} {y_label}".strip() for y_label in y.labels()]
        sheets.append(sheet(rows, x.labels(), labels))
    script = {"Script": "X/Y/Z plot", **x.script("X"), **y.script("Y"), **z.script("Z")}
    content = sheet_bytes(stacked(sheets), drawn.pictures[0].record, script)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _listed(value: str) -> str:
    """Return a value as it stands in a line of comma-separated ones."""
    inner = value.replace('"', '""')
    return f'"{inner}"' if "," in value or '"' in value else value


def _spread(value: str) -> list[str]:
    found = _RANGE.fullmatch(value)
    if found is None:
        return [value]
    first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
    if step < 1 or last < first or (last - first) // step >= _MAX_CELLS:
        raise CommandError(f"the range {value!r} must rise, in steps of 1 or more, and be shorter")
    return [str(number) for number in range(first, last + 1, step)]
