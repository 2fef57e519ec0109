"""A chair."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import lit, rim, rope, shade, shape, sheet_paint

SEAT = "M -37 -47 L -7 -60 L 39 -46 L 10 -32 Z"
EDGE = "M -37 -47 L 10 -32 L 39 -46 L 39 -39 L 10 -25 L -37 -40 Z"
TOP_RAIL = "M -47 -86 Q -47 -90 -43 -91 L -14 -100 Q -10 -101 -9 -97 L -7 -84 L -44 -71 Z"


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a wooden chair that faces to the right, its seat open to view."""
    outline = rim(colour)
    far = shade(colour)
    _leg(canvas, -9, -45, -24, far, outline)
    _back(canvas, colour, rng.choice((1, 2)))
    _leg(canvas, -34, -43, -11, colour.base, outline)
    _leg(canvas, 35, -42, -11, far, outline)
    _leg(canvas, 10, -29, 0, colour.base, outline)
    shape(canvas, EDGE, colour.towards("#1d1430", 0.16), outline)
    shape(canvas, SEAT, sheet_paint(canvas, colour, (-30, -64), (36, -28)), outline)
    canvas.stroke("M -31 -47 L -8 -57", lit(colour), 1.8)


def _leg(canvas: Canvas, x: float, top: float, foot: float, paint: str, outline: str) -> None:
    d = f"M {x - 4:.2f} {top:.2f} L {x + 4:.2f} {top:.2f} L {x + 3:.2f} {foot:.2f} h -6 Z"
    shape(canvas, d, paint, outline)


def _back(canvas: Canvas, colour: Colour, num_rails: int) -> None:
    outline = rim(colour)
    wood = sheet_paint(canvas, colour, (-46, -98), (0, -50))
    rails = ((-59, 8),) if num_rails == 1 else ((-64, 4), (-54, 4))
    for y, width in rails:
        rope(canvas, f"M -35 {y} L -12 {y - 10}", wood, outline, width)
    shape(canvas, "M -13 -90 L -7 -90 L -5 -58 L -11 -56 Z", wood, outline)
    shape(canvas, "M -44 -78 L -37 -80 L -31 -44 L -38 -44 Z", wood, outline)
    shape(canvas, TOP_RAIL, wood, outline)


CHAIR = Thing(
    name="chair",
    plural="chairs",
    draw=draw,
    usual=("brown", "red", "blue", "green", "yellow"),
    width=88,
    height=101,
    scale=1.2,
)
