"""A cactus."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import RIM, lit, rim, shape, sheet_paint

TRUNK = "M -14 -1 L -15 -76 Q -14 -93 0 -93 Q 14 -93 15 -76 L 14 -1 Z"


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a desert cactus with two raised arms and a blossom."""
    low = rng.uniform(-4, 4)
    arms = (
        f"M -8 {-30 - low:.2f} H -24 Q -33 {-30 - low:.2f} -33 {-40 - low:.2f} V {-58 - low:.2f}",
        f"M 8 {-42 + low:.2f} H 24 Q 33 {-42 + low:.2f} 33 {-52 + low:.2f} V {-70 + low:.2f}",
    )
    side = rng.choice((-1, 1))
    with canvas.group(scale=(side, 1)):
        paint = sheet_paint(canvas, colour, (-40 * side, -60), (40 * side, -30))
        for arm in arms:
            canvas.stroke(arm, rim(colour), 15 + 2 * RIM)
            canvas.stroke(arm, paint, 15)
    shape(canvas, TRUNK, sheet_paint(canvas, colour, (-17, 0), (18, 0)), rim(colour))
    _joints(canvas, colour, side, low)
    _spines(canvas, colour, side, low)
    _blossom(canvas, colour)


def _joints(canvas: Canvas, colour: Colour, side: int, low: float) -> None:
    """Cover the trunk's outline where the arms grow out of it."""
    left, right = colour.towards("#ffffff", 0.16), colour.towards("#1d1430", 0.12)
    for x, y in ((-14.5 * side, -30 - low), (14.5 * side, -42 + low)):
        canvas.rect((x - 2, y - 7), 4, 14, left if x < 0 else right)


def _spines(canvas: Canvas, colour: Colour, side: int, low: float) -> None:
    ink = rim(colour)
    canvas.stroke("M -5.5 -6 V -82 M 5.5 -6 V -82", ink, 1.5, opacity=0.55)
    canvas.stroke("M 0 -80 v 5 M 0 -60 v 5 M 0 -40 v 5 M 0 -20 v 5", lit(colour), 2.4)
    marks = f"M {-33 * side} {-55 - low:.2f} v 12 M {33 * side} {-67 + low:.2f} v 12"
    canvas.stroke(marks, lit(colour), 2.4, opacity=0.9)


def _blossom(canvas: Canvas, colour: Colour) -> None:
    petal = "#ffd84d" if colour.name in {"pink", "red", "purple"} else "#f2679a"
    for turn in (-62, -22, 22, 62):
        with canvas.group(move=(0, -90), turn=turn):
            canvas.ellipse((0, -5), 3.6, 6.5, petal, stroke="#7c2b4c", stroke_width=1.1)
    canvas.circle((0, -92), 3, "#fff0a8")


CACTUS = Thing(
    name="cactus",
    plural="cacti",
    draw=draw,
    usual=("green",),
    width=86,
    height=102,
    scale=1.1,
)
