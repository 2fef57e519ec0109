"""A dog."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._parts import INK, Coat, blinks, eye, oval, post, rope, solid

STANDING = (
    "M -37 -26 C -40 -50 -18 -52 0 -50 C 14 -58 30 -56 30 -36 "
    "C 30 -22 12 -20 -4 -21 C -20 -17 -36 -14 -37 -26 Z"
)
SITTING = "M -18 0 C -38 -20 -20 -54 -2 -60 L 22 -58 C 26 -42 24 -22 22 -2 Z"
SKULL = (
    "M -20 -2 C -22 -22 -6 -28 6 -24 C 14 -21 16 -14 19 -9 C 30 -10 37 -5 36 3 "
    "C 35 13 22 17 8 16 C -8 17 -19 12 -20 -2 Z"
)
EAR = "M -6 -3 C 2 -8 9 -2 8 8 C 8 22 4 32 -4 32 C -15 30 -14 6 -6 -3 Z"


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a dog with a floppy ear, a long snout and a wagging tail; it stands, or may sit."""
    coat = Coat.of(colour)
    sits = rng.random() < 0.25
    if sits:
        _sit(canvas, coat, rng)
    else:
        _stand(canvas, coat, rng)
    with canvas.group(move=(4, -70) if sits else (13, -69), turn=rng.uniform(-9, 5)):
        _head(canvas, coat, rng)


def _stand(canvas: Canvas, coat: Coat, rng: Random) -> None:
    wag, step = rng.uniform(-7, 7), rng.uniform(-2, 3)
    tail = f"M -32 -40 C -42 -44 {-48 + wag / 2} -56 {-42 + wag} -72"
    rope(canvas, tail, coat.base, coat.rim, 8.5)
    far = [(post(x, -30, 5), coat.far()) for x in (-14 - step, 7 + step)]
    solid(canvas, far, coat.rim)
    fur = coat.round(canvas, (-4, -36), 34)
    near = [(post(x, -32, 6), coat.base) for x in (-30 + step, 21 - step)]
    solid(canvas, [*near, (STANDING, fur), (oval(-26, -32, 12, 14), fur)], coat.rim)
    canvas.ellipse((24, -38), 5.5, 11, coat.pale, angle=-8)


def _sit(canvas: Canvas, coat: Coat, rng: Random) -> None:
    wag = rng.uniform(-5, 5)
    tail = f"M -16 -8 C -34 -4 -46 -10 {-47 + wag} {-30 + wag}"
    rope(canvas, tail, coat.base, coat.rim, 8.5)
    fur = coat.round(canvas, (-2, -32), 34)
    solid(canvas, [(post(10, -30, 5), coat.far())], coat.rim)
    solid(canvas, [(post(17, -34, 6), coat.base), (SITTING, fur)], coat.rim)
    canvas.path("M 11.5 -30 L 11.5 -4 L 21 -2 L 22.5 -32 Z", coat.base)
    canvas.stroke("M 11 -28 L 11 -4", coat.line, 1.8, opacity=0.7)
    canvas.ellipse((15, -42), 6, 11, coat.pale, angle=-4)
    thigh = [(oval(-15, -14, 14, 13.5), fur), (oval(-6, -4.5, 14, 4.8), coat.base)]
    solid(canvas, thigh, coat.rim, 3)


def _head(canvas: Canvas, coat: Coat, rng: Random) -> None:
    tongue = "M 14 10 C 13 28 27 30 26 10 Z"
    canvas.path(tongue, "#f2708c", stroke=INK, stroke_width=1.6)
    solid(canvas, [(SKULL, coat.round(canvas, (2, -4), 28))], coat.rim)
    canvas.ellipse((25, 4), 10, 8, coat.pale)
    canvas.stroke("M 33 7 Q 26 15 12 11", INK, 2)
    canvas.ellipse((33, -5), 6, 5, INK)
    canvas.ellipse((31.5, -6.8), 1.8, 1.2, "#ffffff", opacity=0.8)
    eye(canvas, (9, -9), 6.8, shut=blinks(rng))
    with canvas.group(move=(-10, -18), turn=rng.uniform(-6, 14)):
        flap = canvas.linear((-8, 0), (6, 30), [(0, coat.base), (1, coat.shade)])
        solid(canvas, [(EAR, flap)], coat.rim)


DOG = Thing(
    name="dog",
    plural="dogs",
    draw=draw,
    usual=("brown", "black", "white", "grey", "orange"),
    width=106,
    height=98,
    scale=1.15,
)
