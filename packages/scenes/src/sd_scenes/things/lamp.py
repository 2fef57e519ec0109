"""A lamp."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import accent, ball_paint, rim, shape

SHADE = "M -20 -98 L 20 -98 L 42 -45 Q 0 -37 -42 -45 Z"
FOOT = "M -12 -27 C -28 -18 -24 -4 -18 0 L 18 0 C 24 -4 28 -18 12 -27 Z"


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a table lamp that is switched on."""
    for radius in (58, 52, 45, 37):
        canvas.ellipse((0, -52), radius, 0.86 * radius, "#ffe58a", opacity=0.09)
    canvas.rect((-4, -44), 8, 20, "#d9a53f", stroke="#6e4d1c", stroke_width=2)
    shape(canvas, FOOT, ball_paint(canvas, colour, (0, -14), 22), rim(colour))
    canvas.rect((-14, -30), 28, 6, "#d9a53f", radius=2.5, stroke="#6e4d1c", stroke_width=1.8)
    _shade(canvas, colour, pleated=rng.random() < 0.5)


def _shade(canvas: Canvas, colour: Colour, *, pleated: bool) -> None:
    glow = colour.towards("#fff2b8", 0.25 if colour.name == "black" else 0.5)
    bulb = canvas.radial((-3, -58), 48, [(0.0, glow), (0.5, colour.base), (1.0, colour.base)])
    shape(canvas, SHADE, bulb, rim(colour))
    if pleated:
        folds = "M -10 -96 L -21 -43 M 0 -96 L 0 -41 M 10 -96 L 21 -43"
        canvas.stroke(folds, rim(colour), 1.4, opacity=0.45)
    canvas.path("M -42 -45 L -39 -52 Q 0 -44 39 -52 L 42 -45 Q 0 -37 -42 -45 Z", accent(colour))
    canvas.path("M -20 -98 L 20 -98 L 22 -93 L -22 -93 Z", accent(colour))
    shape(canvas, SHADE, "none", rim(colour))
    canvas.ellipse((0, -42.5), 26, 3.4, "#fff6c4", opacity=0.95)


LAMP = Thing(
    name="lamp",
    plural="lamps",
    draw=draw,
    usual=("yellow", "red", "green", "blue", "orange"),
    width=88,
    height=100,
    scale=0.9,
)
