"""The moon."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing

CRESCENT = "M 16 -43 A 46 46 0 1 0 16 43 A 46 46 0 0 1 16 -43 Z"


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a thick crescent with a few craters, its centre at (0, -50)."""
    with canvas.group(move=(14, -50), turn=rng.uniform(-16, 10)):
        lit = canvas.radial(
            (-28, -18),
            70,
            [(0, colour.towards("#fffdf0", 0.6)), (0.6, colour.base), (1, colour.dark)],
        )
        canvas.path(CRESCENT, lit, stroke=colour.dark, stroke_width=1.6, stroke_linejoin="round")
        for x, y, radius in ((-33, -4, 6), (-22, 20, 4.5), (-19, -25, 4), (-5, 36, 2.8)):
            canvas.circle((x, y), radius, colour.dark, opacity=0.45)
            canvas.circle((x + 0.8, y + 0.8), radius * 0.75, colour.light, opacity=0.4)


MOON = Thing(
    name="moon",
    plural="moons",
    draw=draw,
    usual=("yellow", "white"),
    width=76,
    habitat=("sky",),
)
