"""An apple."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import LEAF, RIM, ball_paint, gleam, rim, rope, shade, shape

FRUIT = (
    "M 0 -74 C -12 -86 -46 -84 -46 -48 C -46 -20 -28 -1 -14 -1 C -7 -1 -5 -4 0 -4 "
    "C 5 -4 7 -1 14 -1 C 28 -1 46 -20 46 -48 C 46 -84 12 -86 0 -74 Z"
)


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint an apple with a stalk and a leaf."""
    shape(canvas, FRUIT, ball_paint(canvas, colour, (0, -42), 48), rim(colour), 1.2 * RIM)
    canvas.path("M -15 -75 Q 0 -64 15 -75 Q 6 -60 0 -60 Q -6 -60 -15 -75 Z", shade(colour))
    rope(canvas, f"M 0 -67 Q -1 -82 {rng.uniform(-7, -2):.2f} -95", "#7d5030", "#38211a", 4)
    with canvas.group(move=(0, -80), turn=rng.uniform(-10, 14)):
        shape(canvas, "M 0 0 Q 6 -19 34 -16 Q 28 7 0 0 Z", LEAF.base, LEAF.deep, 2)
        canvas.stroke("M 6 -3 Q 15 -9 26 -12", LEAF.light, 1.6)
    gleam(canvas, (-26, -61), 10, -55)


APPLE = Thing(
    name="apple",
    plural="apples",
    draw=draw,
    usual=("red", "red", "green", "yellow"),
    width=94,
    height=98,
    scale=0.6,
)
