"""Run every command that draws, with the embedded model, and lay their pictures out on one sheet.

    python examples/tour.py --out docs/pictures/tour.png

Each panel stands above the command that made it. Seeds are fixed: it is the same sheet every time.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image, ImageDraw

# What each command writes, and the command; later ones begin with what earlier ones drew.
PANELS = {
    "cat.png": 'txt2img "a cat on a mat" --seed 7 --out cat.png',
    "car.png": 'txt2img "a red car on a road" --seed 3 --out car.png',
    "blue.png": 'img2img car.png "a blue car on a road" --strength 0.8 --seed 3 --out blue.png',
    "ball.png": 'inpaint cat.png "a cat next to a red ball" --mask mask.png --seed 5 '
    "--out ball.png",
    "wide.png": 'outpaint car.png "a red car on a road" --left 48 --right 48 --seed 1 '
    "--out wide.png",
    "large.png": "upscale cat.png --scale 2 --strength 0.2 --seed 7 --out large.png",
    "tile.png": 'txt2img "a flower on the grass" --seamless both --seed 2 --out tile.png',
    "two.png": 'txt2img "a black cat AND a red ball" --seed 4 --out two.png',
}
SERIES = {
    "variations": "variations cat.png --count 4 --strength 0.3 --seed 1 --out variations",
    "interpolate": 'interpolate "a green apple" "a red ball" --frames 4 --seed 9 --out interpolate',
}
GRID = (
    'grid "a boat on the water" --x steps=2,4,8,20 --y sampler=euler,euler_a,ddim,dpmpp_2m,unipc '
    "--seed 6 --out grid --sheet grid.png"
)


def run(command: str, folder: Path) -> None:
    """Run one sdcli command in a folder; raises ``CalledProcessError`` when it fails."""
    print(f"sdcli {command}", flush=True)
    program = [sys.executable, "-c", "from sdcli.main import main; main()"]
    subprocess.run([*program, *shlex.split(command)], cwd=folder, check=True)


def draw_all(folder: Path) -> None:
    """Run every command in a folder."""
    mask = Image.new("L", (128, 128))
    ImageDraw.Draw(mask).ellipse((80, 62, 126, 108), fill=255)
    mask.save(folder / "mask.png")
    for command in (*PANELS.values(), *SERIES.values(), GRID):
        run(command, folder)


def sheet(folder: Path) -> Figure:
    """Lay everything out: single pictures above, series below them, the grid at the end."""
    figure = Figure(figsize=(11, 17), layout="constrained")
    parts = cast("Sequence[SubFigure]", figure.subfigures(3, 1, height_ratios=(6, 5, 8)))
    singles, series, grid = parts
    for axis, (name, command) in zip(singles.subplots(2, 4).flat, PANELS.items(), strict=True):
        with Image.open(folder / name) as opened:
            picture = opened.convert("RGB")
        if "seamless" in command:
            picture = _tiled(picture)
        _show(axis, picture, command)
    for axis, (name, command) in zip(series.subplots(2, 1), SERIES.items(), strict=True):
        _show(axis, _row(sorted((folder / name).glob("*.png"))), command, width=110)
    with Image.open(folder / "grid.png") as opened:
        _show(grid.subplots(), opened.convert("RGB"), GRID, width=110)
    return figure


def _show(axis: Axes, picture: Image.Image, command: str, width: int = 40) -> None:
    axis.imshow(picture)
    axis.set_axis_off()
    text = "\n".join(wrap(f"sdcli {command}", width))
    axis.set_title(text, y=-0.03, pad=0, va="top", fontsize=7, family="monospace")


def _row(files: Sequence[Path]) -> Image.Image:
    pictures = []
    for file in files:
        with Image.open(file) as opened:
            pictures.append(opened.convert("RGB"))
    row = Image.new("RGB", (sum(p.width for p in pictures), pictures[0].height))
    for index, picture in enumerate(pictures):
        row.paste(picture, (index * picture.width, 0))
    return row


def _tiled(picture: Image.Image) -> Image.Image:
    tiled = Image.new("RGB", (2 * picture.width, 2 * picture.height))
    for x in (0, picture.width):
        for y in (0, picture.height):
            tiled.paste(picture, (x, y))
    return tiled


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the tour that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("tour.png"), help="the PNG to write")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        draw_all(Path(temporary))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        sheet(Path(temporary)).savefig(options.out, dpi=110)
    print(options.out)


if __name__ == "__main__":
    main()
