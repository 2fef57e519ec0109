"""A tree."""

from random import Random

from sd_scenes.canvas import Canvas, Point
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import ball_paint, lit, rim, shade, shape

Crown = tuple[tuple[float, float, float], ...]
TRUNK = "M -9 0 Q -5 -8 -5.5 -24 L -8 -46 L 8 -46 L 5.5 -24 Q 5 -8 10 0 Q 0 -3 -9 0 Z"
BROAD: Crown = (
    (-29, -55, 17), (29, -55, 17), (-22, -74, 18), (23, -74, 18), (0, -79, 19), (0, -56, 20),
)  # fmt: skip
OVAL: Crown = (
    (-20, -52, 16), (20, -52, 16), (-21, -68, 16), (21, -68, 16), (-11, -82, 16), (12, -82, 16),
    (0, -62, 22), (0, -83, 15),
)  # fmt: skip
ROUND: Crown = (
    (-24, -58, 13), (-25, -74, 13), (-10, -85, 14), (10, -85, 14), (25, -74, 13), (24, -58, 13),
    (9, -50, 13), (-9, -50, 13), (0, -67, 25),
)  # fmt: skip


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a tree with a leafy crown on a brown trunk."""
    crown = [_shaken(lobe, rng) for lobe in rng.choice((BROAD, BROAD, OVAL, ROUND))]
    bark = canvas.linear((-8, 0), (9, 0), [(0.0, "#a5713f"), (0.5, "#7d5030"), (1.0, "#4f2f20")])
    shape(canvas, TRUNK, bark, "#38211a")
    paint = ball_paint(canvas, colour, (0, -66), 42)
    for x, y, radius in crown:
        canvas.circle((x, y), radius + 1.6, rim(colour))
    for x, y, radius in crown:
        canvas.circle((x, y), radius, paint)
    _leaves(canvas, colour, rng)


def _shaken(lobe: tuple[float, float, float], rng: Random) -> tuple[float, float, float]:
    x, y, radius = lobe
    return x + rng.uniform(-2, 2), y + rng.uniform(-1.5, 1.5), radius * rng.uniform(0.95, 1.03)


def _leaves(canvas: Canvas, colour: Colour, rng: Random) -> None:
    marks: tuple[Point, ...] = ((-19, -72), (-3, -82), (-6, -58), (15, -68), (-22, -54), (18, -50))
    for i, (x, y) in enumerate(marks):
        x += rng.uniform(-3, 3)
        y += rng.uniform(-2, 2)
        leaf = f"M {x - 6:.2f} {y:.2f} q 3 5 6 0.5 q 3 4.5 6 -0.5"
        canvas.stroke(leaf, lit(colour) if i < 3 else shade(colour), 2.2, opacity=0.85)


TREE = Thing(
    name="tree",
    plural="trees",
    draw=draw,
    usual=("green",),
    width=92,
    height=100,
    scale=1.6,
)
