"""A star."""

from math import cos, pi, sin
from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a five-pointed star with bevelled points, its centre at (0, -48)."""
    with canvas.group(move=(0, -48), turn=rng.uniform(-9, 9)):
        rim = [_corner(i, 49 if i % 2 == 0 else 22) for i in range(10)]
        glow = canvas.radial(
            (-10, -14), 55, [(0, colour.light), (0.5, colour.base), (1, colour.dark)]
        )
        canvas.polygon(rim, glow, stroke=colour.dark, stroke_width=3, stroke_linejoin="round")
        for i in range(0, 10, 2):
            canvas.polygon([(0, 0), rim[i], rim[(i + 1) % 10]], colour.deep, opacity=0.16)


def _corner(index: int, radius: float) -> tuple[float, float]:
    angle = -pi / 2 + index * pi / 5
    return radius * cos(angle), radius * sin(angle)


STAR = Thing(
    name="star",
    plural="stars",
    draw=draw,
    usual=("yellow", "white"),
    scale=0.8,
    habitat=("sky",),
)
