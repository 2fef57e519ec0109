"""A flower."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import LEAF, ball_paint, rim, rope, shade, shape

HEAD = (0.0, -62.0)


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint one big blossom on a stem with two leaves."""
    bend = rng.uniform(-5, 5)
    rope(canvas, f"M 0 -3 Q {bend:.2f} -28 0 -60", LEAF.base, LEAF.deep, 4.6)
    _leaf(canvas, 1, -10)
    _leaf(canvas, -1, -5)
    with canvas.group(move=HEAD, turn=rng.uniform(-20, 20)):
        _petals(canvas, colour, rng.choice((6, 7, 8)))
    _heart(canvas, colour)


def _leaf(canvas: Canvas, side: int, y: float) -> None:
    with canvas.group(move=(0, y), scale=(side, 1)):
        shape(canvas, "M 0 0 Q 6 -19 30 -20 Q 27 0 0 0 Z", LEAF.base, LEAF.deep, 2)
        canvas.stroke("M 5 -4 Q 13 -11 23 -15", LEAF.light, 1.6)


def _petals(canvas: Canvas, colour: Colour, num_petals: int) -> None:
    half = 96 / num_petals
    left, right = f"{-1.25 * half:.2f}", f"{1.25 * half:.2f}"
    petal = f"M 0 -6 C {left} -12 {left} -38 0 -37 C {right} -38 {right} -12 0 -6 Z"
    paint = canvas.linear(
        (0, -34),
        (0, -4),
        [(0.0, colour.towards("#ffffff", 0.12)), (0.5, colour.base), (1.0, shade(colour))],
    )
    for i in range(num_petals):
        with canvas.group(turn=360 * i / num_petals):
            shape(canvas, petal, paint, rim(colour), 2)


def _heart(canvas: Canvas, colour: Colour) -> None:
    warm = colour.name in {"yellow", "orange"}
    pollen = Colour("pollen", "#7a4a28" if warm else "#f7c531")
    paint = ball_paint(canvas, pollen, HEAD, 11)
    canvas.circle(HEAD, 11, paint, stroke=rim(pollen), stroke_width=2)
    for x, y in ((-4, -65), (4, -65), (0, -59), (-6, -59), (6, -59)):
        canvas.circle((x, y), 1.3, pollen.deep, opacity=0.6)


FLOWER = Thing(
    name="flower",
    plural="flowers",
    draw=draw,
    usual=("red", "pink", "yellow", "purple", "white", "orange"),
    width=76,
    height=100,
    scale=0.75,
)
