"""A balloon."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import ball_paint, gleam, rim, shape

BAG = (
    "M 0 -29 C -19 -35 -33 -52 -33 -67 C -33 -87 -18 -99 0 -99 "
    "C 18 -99 33 -87 33 -67 C 33 -52 19 -35 0 -29 Z"
)


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a party balloon on a curly string."""
    sway = rng.choice((-1, 1)) * rng.uniform(5, 9)
    string = f"M 0 -25 C {sway:.2f} -21 {-sway:.2f} -13 0 -8 Q {0.6 * sway:.2f} -4 0 -1"
    canvas.stroke(string, "#3d3b49", 3)
    canvas.stroke(string, "#f1ecdf", 1.5)
    outline = rim(colour)
    shape(canvas, "M 0 -32 L -6 -23 Q 0 -26 6 -23 Z", colour.base, outline, 2)
    shape(canvas, BAG, ball_paint(canvas, colour, (0, -67), 34), outline)
    canvas.stroke("M 22 -58 Q 17 -46 8 -40", colour.light, 2, opacity=0.55)
    gleam(canvas, (-14, -83), 8.5, -50)


BALLOON = Thing(
    name="balloon",
    plural="balloons",
    draw=draw,
    usual=("red", "blue", "yellow", "green", "pink", "purple", "orange"),
    width=68,
    height=100,
    scale=0.8,
    habitat=("air",),
)
