"""A ball."""

from math import cos, radians, sin
from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour, mix
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import RIM, accent, ball_paint, gleam, rim, star_points

CENTRE = (0.0, -49.0)
RADIUS = 48.0
DISC = "M -48 -49 A 48 48 0 1 1 48 -49 A 48 48 0 1 1 -48 -49 Z"


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a toy ball with a band, a star or stripes."""
    canvas.circle(CENTRE, RADIUS, ball_paint(canvas, colour, CENTRE, RADIUS))
    pattern = rng.choice((_band, _star, _stripes))
    turn = rng.uniform(-28, 28)
    with canvas.clip(DISC), canvas.group(move=CENTRE, turn=turn):
        pattern(canvas, _second_paint(canvas, accent(colour), turn))
    canvas.circle(CENTRE, RADIUS, "none", stroke=rim(colour), stroke_width=1.2 * RIM)
    gleam(canvas, (-20, -77), 11)


def _second_paint(canvas: Canvas, second: str, turn: float) -> str:
    """Return the pattern's paint, whose light stays at the upper left however the ball turns."""
    angle = radians(-127 - turn)
    lamp = (0.62 * RADIUS * cos(angle), 0.62 * RADIUS * sin(angle))
    far = mix(second, "#4a4460", 0.45)
    return canvas.radial(lamp, 1.6 * RADIUS, [(0.0, second), (0.6, second), (1.0, far)])


def _band(canvas: Canvas, paint: str) -> None:
    canvas.path("M -50 -4 Q 0 14 50 -4 L 50 10 Q 0 30 -50 10 Z", paint)


def _star(canvas: Canvas, paint: str) -> None:
    canvas.polygon(star_points((2, 3), 25), paint, stroke=paint, stroke_width=3)


def _stripes(canvas: Canvas, paint: str) -> None:
    canvas.path("M -22 -50 Q -6 0 -22 50 L -9 50 Q 8 0 -9 -50 Z", paint)
    canvas.path("M 22 -50 Q 36 0 22 50 L 30 50 Q 46 0 30 -50 Z", paint)


BALL = Thing(
    name="ball",
    plural="balls",
    draw=draw,
    usual=("red", "blue", "yellow", "green", "orange"),
    width=99,
    height=98,
    scale=0.65,
)
