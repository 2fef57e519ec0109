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
    canvas.path("M -48 -31.5 L 20 -31.5 L 20 -28.5 L -48 -28.5 Z", accent(colour))
    _door(canvas, outline)
    canvas.path("M -48 -12 L 48 -12 L 48 -11 Q 47 -8 44 -8 L -44 -8 Q -47 -8 -48 -12 Z", "#4b4a56")
    canvas.stroke("M -38 -62 L 34 -62", "#ffffff", 2.4, opacity=0.4)
    canvas.rect((-49.5, -26), 4.5, 8, "#e2503c", radius=1.8, stroke="#8f2a26", stroke_width=1)
    canvas.ellipse((45.5, -20), 3.4, 4, "#fff3b0", stroke="#a08335", stroke_width=1.2)
    for x in (-28, 13):
        canvas.circle((x, -11.6), 11.4, shade(colour), stroke=outline, stroke_width=1.2)
        wheel(canvas, x, 10)


def _windows(canvas: Canvas, outline: str, num_windows: int) -> None:
    pane = glass(canvas, -56, -36)
    step = 65 / num_windows
    for i in range(num_windows):
        left = -44 + i * step
        canvas.rect((left, -55), step - 5, 16, pane, radius=3, stroke=outline, stroke_width=1.8)
        canvas.stroke(
            f"M {left + 3.5:.2f} -42.5 L {left + 7.5:.2f} -51", "#ffffff", 2, opacity=0.75
        )


def _door(canvas: Canvas, outline: str) -> None:
    pane = glass(canvas, -56, -30)
    shape(canvas, "M 39 -55 L 40 -55 Q 43 -55 43.5 -52 L 45.5 -37 L 39 -37 Z", pane, outline, 1.8)
    canvas.rect((25, -55), 12, 42, "none", radius=2, stroke=outline, stroke_width=1.8)
    canvas.rect((27, -53), 8, 20, pane, radius=1.5, stroke=outline, stroke_width=1.4)
    canvas.stroke("M 34 -27 L 34 -22", outline, 1.8)


BUS = Thing(
    name="bus",
    plural="buses",
    draw=draw,
    usual=("red", "yellow", "blue", "orange", "green"),
    width=100,
    height=68,
    scale=1.6,
)
