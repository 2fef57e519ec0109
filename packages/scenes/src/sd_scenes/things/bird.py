"""A bird."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._parts import INK, Coat, blinks, eye, oval, solid

BODY = (
    "M -30 -52 C -30 -36 -18 -16 6 -16 C 30 -16 40 -34 38 -54 C 36 -64 30 -66 22 -66 "
    "C -2 -66 -10 -50 -30 -52 Z"
)
WING = (
    "M 12 -6 C 10 -16 -8 -18 -18 -10 C -26 -4 -34 2 -42 2 C -34 12 -14 18 0 12 C 9 8 13 2 12 -6 Z"
)


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a small songbird that stands on two thin legs."""
    with canvas.group(move=(-1, 0), scale=0.88):
        _bird(canvas, colour, rng)


def _bird(canvas: Canvas, colour: Colour, rng: Random) -> None:
    coat = Coat.of(colour)
    for x in (2, 15):
        claws = f"M {x} -18 L {x + 1} -2 M {x - 6} 0 L {x + 1} -3 L {x + 8} 0"
        canvas.stroke(claws, INK, 5)
        canvas.stroke(claws, "#e08a2c", 2.8)
    with canvas.group(move=(-20, -46), turn=rng.uniform(-12, 10)):
        tail = "M 6 -6 L -28 -14 L -34 -6 L -26 -3 L -30 4 L 8 10 Z"
        solid(canvas, [(tail, coat.far())], coat.rim)
    _body(canvas, coat)
    with canvas.group(move=(2, -44), turn=rng.uniform(-14, 8)):
        wing = canvas.linear((0, -16), (-10, 14), [(0, coat.lit), (1, coat.shade)])
        solid(canvas, [(WING, wing)], coat.rim)
        canvas.stroke("M -22 3 Q -12 8 -2 4 M -14 -2 Q -6 2 3 -2", coat.line, 1.8, opacity=0.7)
    with canvas.group(move=(22, -64), turn=rng.uniform(-10, 8)):
        _head(canvas, coat, rng)


def _body(canvas: Canvas, coat: Coat) -> None:
    solid(canvas, [(BODY, coat.round(canvas, (6, -40), 32))], coat.rim)
    with canvas.clip(BODY):
        canvas.ellipse((27, -28), 16, 21, coat.pale, angle=18)


def _head(canvas: Canvas, coat: Coat, rng: Random) -> None:
    beak = "M 15 -8 L 37 2 L 15 10 Z"
    canvas.path(beak, "#f6a52c", stroke=INK, stroke_width=1.8, stroke_linejoin="round")
    canvas.stroke("M 18 2 L 32 2", INK, 1.2)
    tuft = "M -10 -18 C -14 -26 -10 -30 -6 -32 C -4 -27 0 -24 4 -20 Z"
    fur = coat.round(canvas, (0, 0), 24)
    solid(canvas, [(tuft, coat.base), (oval(0, 0, 21, 20), fur)], coat.rim)
    canvas.ellipse((11, 8), 4.5, 3.2, coat.blush, opacity=0.75)
    eye(canvas, (7, -4), 6.4, shut=blinks(rng))


BIRD = Thing(
    name="bird",
    plural="birds",
    draw=draw,
    usual=("blue", "red", "yellow", "brown"),
    width=102,
    height=86,
    scale=0.65,
    habitat=("ground", "air"),
)
