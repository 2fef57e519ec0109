"""A sailing boat."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import CREAM, INK, accent, rim, shape, sheet_paint

HULL = "M -46 -27 L 48 -29 Q 43 -9 30 0 L -30 0 Q -43 -8 -46 -27 Z"
STRIPE = "M -44.5 -20.5 L 46 -22 L 44 -17 L -43 -15.5 Z"


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a boat with two sails that sails to the right."""
    belly = rng.uniform(-3, 5)
    canvas.stroke("M 0 -28 L 0 -97", INK, 4.6)
    canvas.stroke("M 0 -28 L 0 -97", "#b07a48", 2.6)
    _sails(canvas, colour, belly)
    _pennant(canvas, colour)
    outline = rim(colour)
    shape(canvas, HULL, sheet_paint(canvas, colour, (-8, -32), (8, 6)), outline)
    with canvas.clip(HULL):
        canvas.path(STRIPE, accent(colour))
    shape(canvas, "M -48 -31 L 50 -33 L 49 -27.5 L -47 -25.5 Z", "#b07a48", "#5a3820", 1.8)


def _sails(canvas: Canvas, colour: Colour, belly: float) -> None:
    main = f"M -4 -92 Q {-26 - belly} -66 -41 -37 Q -20 -33 -4 -36 Z"
    shape(canvas, main, sheet_paint(canvas, colour, (-34, -80), (2, -30)), rim(colour))
    canvas.stroke("M -14 -76 Q -10 -55 -14 -38", rim(colour), 1.3, opacity=0.45)
    jib = f"M 5 -86 Q {32 + belly} -64 40 -39 Q 22 -35 5 -37 Z"
    cloth = canvas.linear((6, -80), (34, -34), [(0.0, "#fffdf6"), (0.6, CREAM), (1.0, "#d9c9aa")])
    shape(canvas, jib, cloth, "#8a7757")


def _pennant(canvas: Canvas, colour: Colour) -> None:
    shape(canvas, "M 0 -99 L 16 -95.5 L 0 -90.5 Z", colour.base, rim(colour), 1.4)


BOAT = Thing(
    name="boat",
    plural="boats",
    draw=draw,
    usual=("red", "blue", "white", "green", "yellow"),
    width=96,
    height=100,
    scale=1.5,
    habitat=("water",),
)
