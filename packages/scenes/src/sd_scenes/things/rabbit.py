"""A rabbit."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._parts import INK, Coat, blinks, eye, oval, solid

BODY = "M -30 -6 C -36 -34 -14 -46 4 -46 C 20 -44 26 -24 22 -2 L -20 0 Z"


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a sitting rabbit with long upright ears and a round tail."""
    coat = Coat.of(colour)
    solid(canvas, [(oval(-32, -13, 9.5, 9), coat.pale)], coat.rim)
    _body(canvas, coat)
    with canvas.group(move=(8, -50), turn=rng.uniform(-7, 7)):
        for x, lean in ((-10, rng.uniform(-16, -6)), (7, rng.uniform(4, 18))):
            _ear(canvas, coat, x, lean)
        _head(canvas, coat, rng)


def _body(canvas: Canvas, coat: Coat) -> None:
    fur = coat.round(canvas, (-4, -22), 28)
    solid(canvas, [(BODY, fur)], coat.rim)
    canvas.ellipse((13, -24), 8, 12, coat.pale)
    solid(
        canvas,
        [(oval(12, -5, 6.5, 5.5), coat.base), (oval(22, -5, 6.5, 5.5), coat.base)],
        coat.rim,
        3,
    )
    thigh = [(oval(-15, -14, 13, 13), fur), (oval(-8, -4.5, 14, 5), coat.base)]
    solid(canvas, thigh, coat.rim, 3)


def _ear(canvas: Canvas, coat: Coat, x: float, lean: float) -> None:
    with canvas.group(move=(x, -12), turn=lean):
        solid(canvas, [(oval(0, -18, 8, 22), coat.base)], coat.rim)
        canvas.ellipse((0.8, -17), 4, 16, coat.blush)


def _head(canvas: Canvas, coat: Coat, rng: Random) -> None:
    fur = coat.round(canvas, (0, 0), 26)
    solid(canvas, [(oval(0, 0, 25, 20.5), fur)], coat.rim)
    canvas.ellipse((4, 9), 12, 8, coat.pale)
    canvas.rect((1.9, 11), 5, 6, "#ffffff", radius=1.4, stroke=INK, stroke_width=1)
    shut = blinks(rng)
    for x in (-8, 15):
        eye(canvas, (x, -3), 6.6, shut=shut)
    canvas.ellipse((4.4, 4.6), 3.6, 2.6, "#e0708a", stroke=INK, stroke_width=0.9)
    canvas.stroke("M 4.4 7.4 Q 3 12.5 -3 11.5 M 4.4 7.4 Q 6 12.5 12 11.5", INK, 1.6)


RABBIT = Thing(
    name="rabbit",
    plural="rabbits",
    draw=draw,
    usual=("white", "grey", "brown", "black"),
    width=82,
    height=105,
    scale=0.9,
)
