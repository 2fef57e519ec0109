"""A dog."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.marks import PLAIN, Marks
from sd_scenes.thing import Thing
from sd_scenes.things._marks import patched, scarf
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
PRICKED = "M -4 -14 C -7 -28 -3 -38 5 -44 C 15 -38 20 -28 19 -15 Z"
SADDLE = "M -32 -66 C -30 -40 -22 -30 -13 -34 C -6 -25 6 -29 8 -42 C 10 -52 4 -66 0 -66 Z"
SITTING_SADDLE = (
    "M -40 -52 C -24 -70 -12 -66 -4 -56 C 2 -46 0 -38 -8 -36 C -10 -26 -24 -22 -36 -26 Z"
)
MASK = "M -12 -40 L 24 -40 C 22 -26 21 -20 22 -12 C 20 -3 16 4 6 3 C -4 4 -12 -2 -16 -16 Z"
# At full size an ear that stands up would reach out of the box.
_LOWER = 0.88


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a dog with a floppy ear, a long snout and a wagging tail; it stands, or may sit."""
    draw_marked(canvas, colour, rng, PLAIN)


def draw_marked(canvas: Canvas, colour: Colour, rng: Random, marks: Marks) -> None:
    """Paint a dog that has ``marks``."""
    coat = Coat.of(colour)
    patch = Coat.of(Colour.named(marks.patches)) if marks.patches else None
    sits = rng.random() < 0.25
    with canvas.group(scale=_LOWER if marks.ear_up else 1):
        if sits:
            _sit(canvas, coat, rng, patch)
        else:
            _stand(canvas, coat, rng, patch)
        if marks.scarf:
            scarf(canvas, (3, -48) if sits else (10, -47), marks.scarf)
        with canvas.group(move=(4, -70) if sits else (13, -69), turn=rng.uniform(-9, 5)):
            _head(canvas, coat, rng, patch, ear_up=marks.ear_up)


def _stand(canvas: Canvas, coat: Coat, rng: Random, patch: Coat | None) -> None:
    wag, step = rng.uniform(-7, 7), rng.uniform(-2, 3)
    tail = f"M -32 -40 C -42 -44 {-48 + wag / 2} -56 {-42 + wag} -72"
    rope(canvas, tail, coat.base, coat.rim, 8.5)
    far = [(post(x, -30, 5), coat.far()) for x in (-14 - step, 7 + step)]
    solid(canvas, far, coat.rim)
    fur = coat.round(canvas, (-4, -36), 34)
    near = [(post(x, -32, 6), coat.base) for x in (-30 + step, 21 - step)]
    solid(canvas, [*near, (STANDING, fur), (oval(-26, -32, 12, 14), fur)], coat.rim)
    if patch:
        patched(canvas, (STANDING,), [(SADDLE, patch.round(canvas, (-14, -44), 26))])
    canvas.ellipse((24, -38), 5.5, 11, coat.pale, angle=-8)


def _sit(canvas: Canvas, coat: Coat, rng: Random, patch: Coat | None) -> None:
    wag = rng.uniform(-5, 5)
    tail = f"M -16 -8 C -34 -4 -46 -10 {-47 + wag} {-30 + wag}"
    rope(canvas, tail, coat.base, coat.rim, 8.5)
    fur = coat.round(canvas, (-2, -32), 34)
    solid(canvas, [(post(10, -30, 5), coat.far())], coat.rim)
    solid(canvas, [(post(17, -34, 6), coat.base), (SITTING, fur)], coat.rim)
    canvas.path("M 11.5 -30 L 11.5 -4 L 21 -2 L 22.5 -32 Z", coat.base)
    canvas.stroke("M 11 -28 L 11 -4", coat.line, 1.8, opacity=0.7)
    if patch:
        patched(canvas, (SITTING,), [(SITTING_SADDLE, patch.round(canvas, (-14, -48), 24))])
    canvas.ellipse((15, -42), 6, 11, coat.pale, angle=-4)
    thigh = [(oval(-15, -14, 14, 13.5), fur), (oval(-6, -4.5, 14, 4.8), coat.base)]
    solid(canvas, thigh, coat.rim, 3)


def _head(canvas: Canvas, coat: Coat, rng: Random, patch: Coat | None, *, ear_up: bool) -> None:
    ears = patch or coat
    if ear_up:
        solid(canvas, [(PRICKED, ears.far())], coat.rim)
        canvas.path("M 1 -18 C 0 -28 2 -34 6 -37.5 C 12 -33 14 -27 14 -18 Z", coat.blush)
    tongue = "M 14 10 C 13 28 27 30 26 10 Z"
    canvas.path(tongue, "#f2708c", stroke=INK, stroke_width=1.6)
    solid(canvas, [(SKULL, coat.round(canvas, (2, -4), 28))], coat.rim)
    if patch:
        patched(canvas, (SKULL,), [(MASK, patch.round(canvas, (4, -12), 22))])
    canvas.ellipse((25, 4), 10, 8, coat.pale)
    canvas.stroke("M 33 7 Q 26 15 12 11", INK, 2)
    canvas.ellipse((33, -5), 6, 5, INK)
    canvas.ellipse((31.5, -6.8), 1.8, 1.2, "#ffffff", opacity=0.8)
    eye(canvas, (9, -9), 6.8, shut=blinks(rng))
    with canvas.group(move=(-10, -18), turn=rng.uniform(-6, 14)):
        flap = canvas.linear((-8, 0), (6, 30), [(0, ears.base), (1, ears.shade)])
        solid(canvas, [(EAR, flap)], coat.rim)


DOG = Thing(
    name="dog",
    plural="dogs",
    draw=draw,
    draw_marked=draw_marked,
    usual=("brown", "black", "white", "grey", "orange"),
    width=106,
    height=98,
    scale=1.15,
)
