"""A duck."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._parts import INK, Coat, blinks, eye, oval, solid

BODY = (
    "M -48 -44 C -42 -38 -34 -37 -24 -38 C -6 -40 4 -44 20 -44 C 40 -42 42 -18 32 -8 "
    "C 22 2 -14 2 -28 -4 C -42 -10 -48 -28 -48 -44 Z"
)
WING = (
    "M 14 -8 C 6 -16 -14 -14 -30 -12 C -26 -8 -27 -6 -24 -4 C -22 0 -23 2 -19 4 "
    "C -8 14 12 12 14 -8 Z"
)
BILL = "M 14 -6 C 24 -8 38 -4 40 1 C 40 8 30 11 14 10 Z"


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a duck that sits or swims, with a broad bill and an upturned tail."""
    coat = Coat.of(colour)
    fur = coat.round(canvas, (-2, -22), 38)
    solid(
        canvas,
        [
            (BODY, fur),
            ("M -4 -56 C 0 -46 -4 -41 -12 -38 L 36 -32 C 31 -42 30 -48 33 -56 Z", coat.base),
        ],
        coat.rim,
    )
    canvas.path(BODY, fur)
    with canvas.clip(BODY):
        canvas.ellipse((-4, 2), 36, 10, coat.shade, opacity=0.55)
    with canvas.group(move=(2, -20), turn=rng.uniform(-8, 8)):
        wing = canvas.linear((-4, -14), (0, 12), [(0, coat.lit), (1, coat.shade)])
        solid(canvas, [(WING, wing)], coat.rim, 3.6)
        canvas.stroke("M -16 -5 Q -6 -1 4 -5 M -11 2 Q -4 5 4 1", coat.line, 1.8, opacity=0.7)
    with canvas.group(move=(15, -63), turn=rng.uniform(-9, 7)):
        _head(canvas, coat, rng)


def _head(canvas: Canvas, coat: Coat, rng: Random) -> None:
    canvas.path(BILL, "#f59a22", stroke=INK, stroke_width=2, stroke_linejoin="round")
    canvas.stroke("M 20 3 Q 30 5 37 2", "#b45d10", 1.8)
    tuft = "M -8 -17 C -12 -25 -6 -29 0 -27 C -2 -23 2 -20 6 -18 Z"
    fur = coat.round(canvas, (0, 0), 23)
    solid(canvas, [(tuft, coat.base), (oval(0, 0, 21, 20), fur)], coat.rim)
    canvas.ellipse((8, 8), 4.5, 3.2, coat.blush, opacity=0.6)
    eye(canvas, (8, -4), 5.8, shut=blinks(rng))


DUCK = Thing(
    name="duck",
    plural="ducks",
    draw=draw,
    usual=("yellow", "white", "brown", "green"),
    width=108,
    height=93,
    scale=0.8,
    habitat=("water", "ground"),
)
