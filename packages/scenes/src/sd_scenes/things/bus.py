"""A bus."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import accent, glass, rim, shade, shape, sheet_paint, wheel

BODY = (
    "M -44 -8 Q -49 -8 -49 -13 L -49 -56 Q -49 -66 -39 -66 L 38 -66 Q 46 -66 47.5 -57 "
    "L 49 -34 L 49 -13 Q 49 -8 44 -8 Z"
)


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a long bus with a row of windows that drives to the right."""
    outline = rim(colour)
    shape(canvas, BODY, sheet_paint(canvas, colour, (0, -68), (0, -2)), outline)
    _windows(canvas, outline, rng.choice((3, 4)))
    canvas.path("M -48 -29 L 20 -29 L 20 -25.5 L -48 -25.5 Z", accent(colour))
    _door(canvas, outline)
    canvas.path("M -48 -12 L 48 -12 L 48 -11 Q 47 -8 44 -8 L -44 -8 Q -47 -8 -48 -12 Z", "#4b4a56")
    canvas.stroke("M -38 -62 L 34 -62", "#ffffff", 2.4, opacity=0.4)
    canvas.rect((-49.5, -24), 4.5, 8, "#e2503c", radius=1.8, stroke="#8f2a26", stroke_width=1)
    canvas.ellipse((45.5, -20), 3.4, 4, "#fff3b0", stroke="#a08335", stroke_width=1.2)
    for x in (-28, 13):
        canvas.circle((x, -10.5), 12.2, shade(colour), stroke=outline, stroke_width=1.2)
        wheel(canvas, x, 10.5)


def _windows(canvas: Canvas, outline: str, num_windows: int) -> None:
    pane = glass(canvas, -56, -36)
    step = 65 / num_windows
    for i in range(num_windows):
        left = -44 + i * step
        canvas.rect((left, -55), step - 4.5, 19, pane, radius=3, stroke=outline, stroke_width=1.8)
        canvas.stroke(f"M {left + 3.5:.2f} -41 L {left + 8:.2f} -50", "#ffffff", 2, opacity=0.75)


def _door(canvas: Canvas, outline: str) -> None:
    shape(
        canvas,
        "M 25 -53 Q 25 -55 27 -55 L 40 -55 Q 43 -55 43.5 -52 L 45 -35 L 38 -35 L 38 -14 L 25 -14 Z",
        glass(canvas, -56, -8),
        outline,
        1.8,
    )
    canvas.stroke("M 38 -54 L 38 -35", outline, 1.8)


BUS = Thing(
    name="bus",
    plural="buses",
    draw=draw,
    usual=("red", "yellow", "blue", "orange", "green"),
    width=100,
    height=68,
    scale=1.6,
)
