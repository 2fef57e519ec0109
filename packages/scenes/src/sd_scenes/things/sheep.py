"""A sheep."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._parts import INK, Coat, blinks, eye, oval, post, smile, solid

PUFFS = (
    (-31, -52, 14),
    (-15, -64, 15),
    (6, -65, 15),
    (23, -54, 14),
    (28, -37, 13),
    (14, -25, 13),
    (-6, -22, 14),
    (-25, -27, 14),
    (-36, -39, 12),
)


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a sheep: a woolly cloud on four thin legs, with a dark face."""
    with canvas.group(move=(-4, 0), scale=0.93):
        _sheep(canvas, colour, rng)


def _sheep(canvas: Canvas, colour: Colour, rng: Random) -> None:
    coat = Coat.of(colour)
    dark = colour.name in ("black", "brown", "purple")
    skin, rim = ("#c3a890", "#4a3430") if dark else ("#4a3d48", "#241a2c")
    step = rng.uniform(-2, 2)
    for x in (-27 - step, -11 + step, 5 - step, 20 + step):
        solid(canvas, [(post(x, -24, 3.8, 2), skin)], rim, 3.4)
    _wool(canvas, coat, rng)
    with canvas.group(move=(30, -58), turn=rng.uniform(-7, 9)):
        _head(canvas, coat, (skin, rim), rng)


def _wool(canvas: Canvas, coat: Coat, rng: Random) -> None:
    fur = coat.round(canvas, (-5, -44), 40)
    puffs = [(oval(x, y, r * rng.uniform(0.94, 1.06), r), fur) for x, y, r in PUFFS]
    solid(canvas, [*puffs, (oval(-4, -44, 30, 24), fur)], coat.rim)
    curls = (
        "M -26 -50 q 5 8 11 0 M -8 -56 q 5 8 11 0 M -18 -36 q 5 8 11 0 "
        "M 0 -40 q 5 8 11 0 M -32 -34 q 4 7 9 0"
    )
    canvas.stroke(curls, coat.line, 2.2, opacity=0.5)


def _head(canvas: Canvas, coat: Coat, face: tuple[str, str], rng: Random) -> None:
    skin, rim = face
    droop = rng.uniform(-10, 12)
    ears = [(oval(-19, -1, 9, 5, -20 - droop), skin), (oval(20, -1, 9, 5, 20 + droop), skin)]
    solid(canvas, [*ears, (oval(1, 4, 15, 19), skin)], rim, 3.6)
    tuft = [
        (oval(-7, -13, 8, 7), coat.base),
        (oval(8, -13, 8, 7), coat.base),
        (oval(0, -17, 9, 8), coat.lit),
    ]
    solid(canvas, tuft, coat.rim, 3.4)
    shut = blinks(rng)
    for x in (-6, 8):
        eye(canvas, (x, 1), 5, shut=shut)
    canvas.ellipse((2, 13), 4, 2.6, "#e88ea0", stroke=INK, stroke_width=0.8)
    smile(canvas, (2, 18), 8, "#f6dce0" if skin == "#4a3d48" else INK)


SHEEP = Thing(
    name="sheep",
    plural="sheep",
    draw=draw,
    usual=("white", "black", "grey", "brown"),
    width=104,
    height=79,
    scale=1.1,
)
