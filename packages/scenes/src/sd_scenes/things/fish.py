"""A fish."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._parts import INK, Coat, eye, smile, solid

BODY = (
    "M 48 -32 C 40 -54 8 -60 -12 -46 C -18 -42 -24 -38 -28 -33 "
    "C -24 -26 -18 -22 -12 -18 C 8 -4 40 -10 48 -32 Z"
)
BACK_FIN = "M -14 -44 C -10 -64 8 -70 24 -62 C 20 -58 20 -54 20 -50 Z"
BELLY_FIN = "M -6 -16 C -8 -4 2 2 12 0 C 10 -5 12 -9 14 -12 Z"
TAIL = (
    "M 2 0 C -10 -4 -18 -16 -24 -26 C -28 -12 -24 -4 -20 0 C -24 4 -28 12 -24 26 "
    "C -18 16 -10 4 2 0 Z"
)


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a swimming fish from the side, with fins, bands and scales."""
    coat = Coat.of(colour)
    with canvas.group(move=(0, -34), turn=rng.uniform(-7, 7)), canvas.group(move=(0, 34)):
        with canvas.group(move=(-26, -33), scale=(rng.uniform(0.85, 1.05), 1.0)):
            fin = canvas.linear((-26, 0), (2, 0), [(0, coat.base), (1, coat.shade)])
            solid(canvas, [(TAIL, fin)], coat.rim)
            canvas.stroke("M -6 -3 L -18 -13 M -6 3 L -18 13", coat.line, 1.6, opacity=0.6)
        _body(canvas, coat)
        _face(canvas, coat, rng)


def _body(canvas: Canvas, coat: Coat) -> None:
    fin = canvas.linear((0, -68), (0, -44), [(0, coat.lit), (1, coat.shade)])
    solid(canvas, [(BACK_FIN, fin), (BELLY_FIN, coat.far())], coat.rim)
    solid(canvas, [(BODY, coat.round(canvas, (12, -33), 32))], coat.rim)
    with canvas.clip(BODY):
        canvas.ellipse((20, -10), 34, 9, coat.pale, opacity=0.75)
        canvas.stroke("M -10 -52 Q -2 -33 -10 -14", coat.pale, 6, opacity=0.85)
    scales = "M 4 -44 q 5 4 0 8 M 4 -32 q 5 4 0 8 M -4 -38 q 5 4 0 8 M 12 -38 q 5 4 0 8"
    canvas.stroke(scales, coat.line, 1.8, opacity=0.65)


def _face(canvas: Canvas, coat: Coat, rng: Random) -> None:
    canvas.stroke("M 20 -47 Q 27 -34 20 -20", coat.line, 2, opacity=0.8)
    with canvas.group(move=(14, -27), turn=rng.uniform(-14, 18)):
        solid(
            canvas,
            [("M 4 -3 C -4 -8 -16 -6 -20 3 C -22 9 -15 12 -8 11 C -1 10 3 6 4 3 Z", coat.lit)],
            coat.rim,
            3,
        )
    eye(canvas, (33, -38), 7)
    smile(canvas, (41, -25), 8, INK)


FISH = Thing(
    name="fish",
    plural="fish",
    draw=draw,
    usual=("orange", "blue", "yellow", "red", "green"),
    width=106,
    height=70,
    scale=0.85,
    habitat=("water",),
)
