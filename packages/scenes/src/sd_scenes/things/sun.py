"""The sun."""

from math import cos, pi, sin
from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing

NUM_RAYS = 12


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a round sun with rays, its centre at (0, -50)."""
    start = rng.uniform(0, 2 * pi / NUM_RAYS)
    long, short = 49.0, rng.uniform(40, 44)
    with canvas.group(move=(0, -50)):
        for ray in range(NUM_RAYS):
            middle = start + ray * 2 * pi / NUM_RAYS
            reach = long if ray % 2 == 0 else short
            points = [
                (27 * cos(middle - 0.22), 27 * sin(middle - 0.22)),
                (reach * cos(middle), reach * sin(middle)),
                (27 * cos(middle + 0.22), 27 * sin(middle + 0.22)),
            ]
            canvas.polygon(points, colour.towards("#c85a10", 0.18))
        disc = canvas.radial(
            (-9, -9),
            40,
            [(0, colour.towards("#fffbe0", 0.7)), (0.6, colour.base), (1, colour.dark)],
        )
        canvas.circle((0, 0), 29, disc, stroke=colour.dark, stroke_width=1.5)


SUN = Thing(
    name="sun",
    plural="suns",
    draw=draw,
    usual=("yellow", "orange"),
    habitat=("sky",),
)
