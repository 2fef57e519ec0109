"""A car."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import glass, lit, rim, shade, shape, sheet_paint, wheel

BODY = (
    "M -45 -9 Q -49 -9 -49 -14 L -49 -27 Q -49 -33 -42 -35 L -38 -36 Q -30 -57 -17 -58 "
    "L 5 -58 Q 16 -57 26 -37 L 37 -34 Q 49 -31 49 -21 L 49 -13 Q 49 -9 45 -9 Z"
)
REAR_WINDOW = "M -29 -37 Q -22 -49.5 -15 -50 L -8 -50 L -8 -37 Z"
FRONT_WINDOW = "M -1 -37 L -1 -50 L 4 -50 Q 10 -49.5 16 -37 Z"


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a small round car that drives to the right."""
    outline = rim(colour)
    shape(canvas, BODY, sheet_paint(canvas, colour, (0, -60), (0, -4)), outline)
    canvas.path("M -48 -12 L 48 -12 Q 48 -9 45 -9 L -45 -9 Q -48 -9 -48 -12 Z", "#4b4a56")
    _cabin(canvas, outline, driver=rng.random() < 0.35)
    canvas.stroke("M -40 -31.5 Q -10 -34 38 -30.5", lit(colour), 1.8, opacity=0.9)
    canvas.stroke("M -4.5 -36 L -4.5 -15", shade(colour), 1.6)
    canvas.stroke("M 0 -29 L 6 -29", outline, 2.2)
    canvas.rect((-49.5, -30), 5, 7, "#e2503c", radius=2, stroke="#8f2a26", stroke_width=1)
    canvas.ellipse((44, -26), 4.2, 4.8, "#fff3b0", stroke="#a08335", stroke_width=1.2)
    for x in (-27, 27):
        canvas.circle((x, -12.6), 12.4, shade(colour), stroke=outline, stroke_width=1.2)
        wheel(canvas, x, 10.8)


def _cabin(canvas: Canvas, outline: str, *, driver: bool) -> None:
    pane = glass(canvas, -52, -37)
    for window in (REAR_WINDOW, FRONT_WINDOW):
        shape(canvas, window, pane, outline, 1.8)
    if driver:
        canvas.circle((4, -43), 4, "#5b4034")
        canvas.path("M -0.5 -37.8 Q 4 -43 9 -37.8 Z", "#5b4034")
    canvas.stroke("M -21 -41 L -15 -48", "#ffffff", 2.2, opacity=0.8)


CAR = Thing(
    name="car",
    plural="cars",
    draw=draw,
    usual=("red", "blue", "green", "yellow", "white"),
    width=100,
    height=59,
    scale=1.4,
)
