"""A cup."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import RIM, accent, gleam, heart, rim, shade, shape, sheet_paint

BODY = "M -43 -72 L -37 -12 Q -35 -1 -24 -1 L 9 -1 Q 20 -1 22 -12 L 28 -72 Z"
HANDLE = "M 25 -57 C 52 -64 54 -20 22 -22"


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a mug of tea with its handle on the right."""
    outline = rim(colour)
    canvas.stroke(HANDLE, outline, 10 + 2 * RIM)
    canvas.stroke(HANDLE, colour.base, 10)
    shape(canvas, BODY, sheet_paint(canvas, colour, (-46, -30), (32, -20)), outline)
    pattern = rng.choice(("plain", "heart", "bands"))
    if pattern == "heart":
        canvas.path(heart((-8, -33), 24), accent(colour))
    elif pattern == "bands":
        canvas.path("M -39.5 -29 Q -8 -19 25 -29 L 24 -19 Q -8 -9 -38.5 -19 Z", accent(colour))
    _mouth(canvas, colour, outline)
    gleam(canvas, (-30, -48), 7, -82)


def _mouth(canvas: Canvas, colour: Colour, outline: str) -> None:
    canvas.ellipse((-7.5, -72), 35.5, 11, colour.light, stroke=outline, stroke_width=RIM)
    canvas.ellipse((-7.5, -71), 30, 7.8, shade(colour))
    canvas.ellipse((-7.5, -69), 27, 5.6, "#7d4a25")
    canvas.ellipse((-14, -70), 10, 2, "#b87f4a")


CUP = Thing(
    name="cup",
    plural="cups",
    draw=draw,
    usual=("white", "blue", "red", "yellow", "green"),
    width=92,
    height=84,
    scale=0.6,
)
