"""An umbrella."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import INK, ball_paint, gleam, rim, rope, shade, shape

CANOPY = (
    "M -50 -44 C -50 -76 -28 -94 0 -94 C 28 -94 50 -76 50 -44 "
    "Q 42 -53 31 -44 Q 23 -53 11 -44 Q 0 -53 -11 -44 Q -23 -53 -31 -44 Q -42 -53 -50 -44 Z"
)
PANELS = (
    "M 0 -94 C -14 -88 -30 -70 -31 -44 Q -23 -53 -11 -44 C -11 -66 -6 -86 0 -94 Z",
    "M 0 -94 C 14 -88 30 -70 31 -44 Q 23 -53 11 -44 C 11 -66 6 -86 0 -94 Z",
)


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint an open umbrella that stands upright on its crook."""
    grip = rng.choice(("#a86a38", "#7d4a2c", "#c98b4a"))
    canvas.stroke("M 0 -99 L 0 -88", INK, 4)
    rope(canvas, "M 0 -50 L 0 -12", "#c9ced8", "#3d3b49", 2.8)
    rope(canvas, "M 0 -22 L 0 -10 Q 0 -3 7.5 -3 Q 15 -3 15 -11", grip, "#38211a", 4.8)
    outline = rim(colour)
    canvas.path(CANOPY, ball_paint(canvas, colour, (0, -62), 48))
    for panel in PANELS:
        canvas.path(panel, shade(colour), opacity=0.45)
    ribs = "M 0 -94 C -14 -88 -30 -70 -31 -44 M 0 -94 C 14 -88 30 -70 31 -44"
    inner = "M 0 -94 C -6 -86 -11 -66 -11 -44 M 0 -94 C 6 -86 11 -66 11 -44"
    canvas.stroke(f"{ribs} {inner}", outline, 1.5, opacity=0.7)
    shape(canvas, CANOPY, "none", outline)
    gleam(canvas, (-33, -72), 8, -52)


UMBRELLA = Thing(
    name="umbrella",
    plural="umbrellas",
    draw=draw,
    usual=("red", "blue", "yellow", "purple", "green", "pink"),
    width=102,
    height=101,
    scale=1.0,
)
