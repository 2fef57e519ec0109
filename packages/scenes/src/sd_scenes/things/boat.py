"""A sailing boat."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import CREAM, INK, accent, rim, shape, sheet_paint

HULL = "M -46 -31 L 48 -33 Q 44 -10 30 -1 L -30 -1 Q -43 -9 -46 -31 Z"
STRIPE = "M -46 -23 L 48 -25 L 48 -21.5 L -46 -19.5 Z"


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
    shape(canvas, "M -48 -34 L 50 -36 L 49 -31.5 L -47 -29.5 Z", "#b07a48", "#5a3820", 1.8)


def _sails(canvas: Canvas, colour: Colour, belly: float) -> None:
    main = f"M -4 -92 Q {-28 - belly:.2f} -70 -44 -41 Q -20 -37 -4 -40 Z"
    shape(canvas, main, sheet_paint(canvas, colour, (-34, -80), (2, -30)), rim(colour))
    canvas.stroke("M -16 -78 Q -12 -58 -16 -42", rim(colour), 1.3, opacity=0.45)
    jib = f"M 5 -84 Q {26 + belly:.2f} -66 33 -43 Q 18 -40 5 -41 Z"
    cloth = canvas.linear((6, -80), (30, -38), [(0.0, "#fffdf6"), (0.6, CREAM), (1.0, "#d9c9aa")])
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
