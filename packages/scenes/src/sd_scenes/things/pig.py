"""A pig."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._parts import INK, Coat, blinks, eye, oval, post, rope, smile, solid


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a round pig with a big snout and a curly tail."""
    coat = Coat.of(colour)
    with canvas.group(move=(-38, -42), turn=rng.uniform(-14, 14)):
        curl = "M 4 0 C -4 4 -10 0 -8 -6 C -6 -11 1 -9 -1 -4 C -3 2 -12 0 -13 -8"
        rope(canvas, curl, coat.base, coat.rim, 3.4)
    _body(canvas, coat, rng)
    with canvas.group(move=(22, -46), turn=rng.uniform(-7, 7)):
        _head(canvas, coat, rng)


def _body(canvas: Canvas, coat: Coat, rng: Random) -> None:
    step = rng.uniform(-2, 2)
    far = [(post(-10 - step, -20, 6, 1), coat.far()), (post(5 + step, -20, 6, 1), coat.far())]
    solid(canvas, far, coat.rim)
    fur = coat.round(canvas, (-4, -38), 36)
    near = [(post(-27 + step, -22, 7, 1), coat.base), (post(22 - step, -22, 7, 1), coat.base)]
    solid(canvas, [*near, (oval(-4, -37, 38, 27), fur)], coat.rim)
    for x in (-27 + step, 22 - step):
        canvas.rect((x - 7, -5), 15, 5, coat.line, radius=2, opacity=0.8)


def _head(canvas: Canvas, coat: Coat, rng: Random) -> None:
    flop = rng.uniform(-3, 4)
    ears = [
        (f"M -21 -8 C -26 -20 -24 -29 {-19 - flop} -33 C -11 -30 -5 -24 -4 -17 Z", coat.base),
        (f"M 21 -8 C 26 -20 24 -29 {20 + flop} -33 C 12 -30 6 -24 5 -17 Z", coat.base),
    ]
    solid(canvas, [*ears, (oval(0, 0, 25, 23), coat.round(canvas, (0, 0), 26))], coat.rim)
    canvas.polygon([(-18, -15), (-18, -26), (-9, -19)], coat.blush)
    canvas.polygon([(18, -15), (19, -26), (10, -19)], coat.blush)
    shut = blinks(rng)
    for x in (-9, 16):
        eye(canvas, (x, -6), 5.4, shut=shut)
    canvas.ellipse((-13, 8), 5, 3.5, coat.blush, opacity=0.6)
    solid(canvas, [(oval(7, 6, 12, 8.5), coat.pale)], coat.rim, 3.4)
    for x in (3, 11):
        canvas.ellipse((x, 6), 2, 3.2, INK, opacity=0.85)
    smile(canvas, (6, 17), 10, INK)


PIG = Thing(
    name="pig",
    plural="pigs",
    draw=draw,
    usual=("pink", "brown", "black", "white"),
    width=104,
    height=83,
    scale=1.05,
)
