"""A frog."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._parts import INK, Coat, blinks, eye, oval, solid


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a sitting frog with bulging eyes and a very wide mouth."""
    coat = Coat.of(colour)
    spread = rng.uniform(-2, 3)
    for side in (-1, 1):
        with canvas.group(scale=(side, 1)):
            _hind_leg(canvas, coat, spread)
    _body(canvas, coat)
    with canvas.group(move=(1, -45), turn=rng.uniform(-6, 6)):
        _head(canvas, coat, rng)


def _hind_leg(canvas: Canvas, coat: Coat, spread: float) -> None:
    foot = f"M 18 -7 L {48 + spread} -7 Q {52 + spread} -1 {46 + spread} 0 L 20 0 Z"
    thigh = oval(30 + spread, -18, 13, 19, 24)
    solid(canvas, [(foot, coat.base), (thigh, coat.round(canvas, (30, -18), 18))], coat.rim)


def _body(canvas: Canvas, coat: Coat) -> None:
    fur = coat.round(canvas, (0, -24), 28)
    solid(canvas, [(oval(0, -24, 26, 24), fur)], coat.rim)
    canvas.ellipse((1, -16), 13, 16, coat.pale)
    for x in (-15, 17):
        sole = f"Q {x - 10} -4 {x - 10} 0 L {x + 10} 0 Q {x + 10} -4 {x + 4} -5"
        arm = f"M {x - 5} -28 L {x - 4} -5 {sole} L {x + 5} -28 Z"
        solid(canvas, [(arm, coat.base)], coat.rim, 3)


def _head(canvas: Canvas, coat: Coat, rng: Random) -> None:
    fur = coat.round(canvas, (0, 0), 36)
    bulges = [(oval(-20, -20, 14, 14), fur), (oval(20, -20, 14, 14), fur)]
    solid(canvas, [*bulges, (oval(0, 0, 37, 22), fur)], coat.rim)
    canvas.path("M -29 4 Q 2 24 33 2 Q 20 17 2 17 Q -18 17 -29 4 Z", coat.pale)
    canvas.stroke("M -29 3 Q 2 22 33 1", INK, 2.6)
    canvas.circle((-2, -5), 1.3, coat.line)
    canvas.circle((6, -5), 1.3, coat.line)
    for x in (-27, 29):
        canvas.ellipse((x, 0), 4, 3, coat.blush, opacity=0.6)
    shut = blinks(rng)
    for x in (-19, 21):
        eye(canvas, (x, -22), 9.6, shut=shut, iris="#e8b62c")


FROG = Thing(
    name="frog",
    plural="frogs",
    draw=draw,
    usual=("green", "brown"),
    width=106,
    height=83,
    scale=0.7,
)
