"""A cat."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.marks import PLAIN, Marks
from sd_scenes.thing import Thing
from sd_scenes.things._marks import patched, scarf
from sd_scenes.things._parts import INK, Coat, blinks, eye, oval, post, rope, solid

SITTING = "M -20 0 C -38 -22 -20 -52 2 -56 C 22 -54 29 -28 27 -8 Q 26 0 20 0 Z"
STANDING = (
    "M -40 -22 C -42 -46 -24 -48 -8 -46 C 10 -48 22 -44 22 -28 "
    "C 22 -16 4 -16 -8 -17 C -26 -14 -39 -12 -40 -22 Z"
)
LEFT_EAR = "M -28 -2 C -30 -16 -28 -28 -24 -34 C -16 -32 -8 -26 -3 -19 Z"
RIGHT_EAR = "M 28 -2 C 30 -16 28 -28 24 -34 C 16 -32 8 -26 3 -19 Z"

SITTING_SADDLE = (
    "M -40 -30 C -30 -60 -16 -62 -2 -60 C 2 -46 -2 -38 -10 -37 C -16 -28 -28 -26 -40 -30 Z"
)
HAUNCH = "M -40 -16 C -28 -24 -12 -22 -10 -12 C -9 -4 -16 0 -22 4 L -40 4 Z"
SADDLE = "M -23 -60 C -24 -42 -21 -28 -12 -31 C -4 -24 6 -28 6 -44 L 6 -60 Z"
MASK = "M -40 -30 L -5 -30 C -3 -18 -4 -8 -7 2 C -12 9 -22 9 -36 4 Z"


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a cat with a curled tail that sits, or now and then stands."""
    draw_marked(canvas, colour, rng, PLAIN)


def draw_marked(canvas: Canvas, colour: Colour, rng: Random, marks: Marks) -> None:
    """Paint a cat that has ``marks``; its ears stand up anyway."""
    coat = Coat.of(colour)
    patch = Coat.of(Colour.named(marks.patches)) if marks.patches else None
    stands = rng.random() < 0.25
    if stands:
        _stand(canvas, coat, rng, patch)
    else:
        _sit(canvas, coat, rng, patch)
    if marks.scarf:
        scarf(canvas, (7, -34) if stands else (0, -40), marks.scarf)
    with canvas.group(move=(10, -57) if stands else (4, -64), turn=rng.uniform(-7, 7)):
        _head(canvas, coat, patch)
        _face(canvas, coat, rng)


def _sit(canvas: Canvas, coat: Coat, rng: Random, patch: Coat | None) -> None:
    x = -42 + rng.uniform(-5, 5)
    tail = f"M -12 -7 C -40 -1 -47 -16 {x} -30 C {x + 3} -41 {x + 15} -41 -29 -33"
    rope(canvas, tail, coat.base, coat.rim, 9.5)
    fur = coat.round(canvas, (0, -28), 32)
    solid(canvas, [(SITTING, fur), (oval(-17, -10, 15, 10), fur)], coat.rim)
    if patch:
        paint = patch.round(canvas, (-12, -30), 26)
        patched(canvas, (SITTING,), [(SITTING_SADDLE, paint), (HAUNCH, paint)])
    canvas.stroke("M -25 -19 C -13 -25 -4 -18 -4 -6", coat.line, 1.8, opacity=0.7)
    canvas.ellipse((11, -34), 9, 14, coat.pale, angle=-6)
    paws = [(oval(5, -5, 8, 5), coat.base), (oval(20, -5, 8, 5), coat.base)]
    solid(canvas, paws, coat.rim, 3)
    canvas.stroke("M 12.5 -22 L 12.5 -6", coat.line, 1.8)


def _stand(canvas: Canvas, coat: Coat, rng: Random, patch: Coat | None) -> None:
    x, step = -46 + rng.uniform(-3, 3), rng.uniform(-2, 2)
    tail = (
        f"M -34 -34 C {x - 4} -46 {x - 4} -62 {x + 2} -72 C {x + 6} -79 {x + 14} -76 {x + 10} -69"
    )
    rope(canvas, tail, coat.base, coat.rim, 8.5)
    far = [(post(x, -26, 4.6), coat.far()) for x in (-19 - step, 2 + step)]
    solid(canvas, far, coat.rim)
    fur = coat.round(canvas, (-8, -32), 33)
    near = [(post(x, -28, 5.4), coat.base) for x in (-33 + step, 14 - step)]
    solid(canvas, [*near, (STANDING, fur)], coat.rim)
    if patch:
        patched(canvas, (STANDING,), [(SADDLE, patch.round(canvas, (-12, -38), 22))])
    for x in (-26, -17, -8):
        canvas.stroke(f"M {x} -45 Q {x + 2} -39 {x} -34", coat.shade, 3)


def _head(canvas: Canvas, coat: Coat, patch: Coat | None) -> None:
    ears = [(LEFT_EAR, (patch or coat).base), (RIGHT_EAR, coat.base)]
    face = oval(0, 0, 31, 24)
    solid(canvas, [*ears, (face, coat.round(canvas, (0, 0), 30))], coat.rim)
    if patch:
        patched(canvas, (face,), [(MASK, patch.round(canvas, (-14, -8), 24))])
    canvas.polygon([(-23, -18), (-22, -28), (-12, -22)], coat.blush)
    canvas.polygon([(23, -18), (22, -28), (12, -22)], coat.blush)
    for x in (-6, 1, 8):
        canvas.stroke(f"M {x} -22 L {0.5 + 0.75 * x:.2f} -14", coat.shade, 3)
    canvas.ellipse((3, 11), 14, 8.5, coat.pale)


def _face(canvas: Canvas, coat: Coat, rng: Random) -> None:
    shut = blinks(rng)
    for x in (-11.5, 15):
        eye(canvas, (x, -1), 7.6, shut=shut, iris="#7ec850")
    canvas.path("M -0.8 6 L 6.8 6 L 3 10.5 Z", "#e0708a", stroke=INK, stroke_width=1)
    canvas.stroke("M 3 10.5 Q 1.5 15 -4 14 M 3 10.5 Q 4.5 15 10 14", INK, 1.7)
    whiskers = "M -14 9 L -38 5 M -14 13 L -37 15 M 19 9 L 41 5 M 19 13 L 40 15"
    canvas.stroke(whiskers, coat.line, 1.5)


CAT = Thing(
    name="cat",
    plural="cats",
    draw=draw,
    draw_marked=draw_marked,
    usual=("orange", "grey", "black", "white", "brown"),
    width=104,
    height=101,
    scale=1.0,
)
