"""Momo: a cat of cream, ginger and soot, odd-eyed, in a raspberry bow with a bell."""

from random import Random

from sd_scenes.canvas import Canvas, Point
from sd_scenes.subject import Subject
from sd_scenes.subjects._marks import BRASS, CREAM, GOLD, SOOT, medal, tail
from sd_scenes.things._marks import fur, patched
from sd_scenes.things._parts import INK, eye, oval, post, rope, solid
from sd_scenes.things.cat import LEFT_EAR, RIGHT_EAR, SITTING, STANDING

GINGER, RASPBERRY = "#e0822a", "#c2185f"

HIP = oval(-17, -10, 15, 10)
LYING = (
    "M -44 -12 C -46 -34 -26 -42 -6 -40 C 14 -44 30 -30 30 -12 Q 30 0 22 0 L -32 0 "
    "Q -43 0 -44 -12 Z"
)
FACE = oval(0, 0, 31, 24)
BOW = (
    "M 0 -1 C -8 -10 -19 -11 -19 -2 L -19 3 C -19 11 -8 10 0 3 "
    "C 8 10 19 11 19 3 L 19 -2 C 19 -11 8 -10 0 -1 Z"
)
LEFT_MASK = "M -40 -30 L -5 -30 C -3 -18 -4 -8 -7 2 C -12 9 -22 9 -36 4 Z"
RIGHT_MASK = "M 40 -30 L 9 -30 C 8 -20 8 -10 10 0 C 15 9 24 10 38 5 Z"


def sit(canvas: Canvas, rng: Random) -> None:
    """Paint Momo sitting, the tail curled."""
    x = -42 + rng.uniform(-4, 4)
    curl = f"C {x - 5} -28 {x + 2} -42 {x + 13} -37"
    tail(canvas, "M -12 -7 C -30 -3 -40 -8", (x, -17), curl, GINGER)
    body = CREAM.round(canvas, (0, -28), 34)
    solid(canvas, [(SITTING, body), (HIP, body)], CREAM.rim)
    ginger, soot = _patches(canvas, (-12, -16), (-12, -40))
    saddle = "M -40 -30 C -30 -60 -16 -62 -2 -60 C 2 -46 -2 -38 -10 -37 C -16 -28 -28 -26 -40 -30 Z"
    haunch = "M -40 -16 C -28 -24 -12 -22 -10 -12 C -9 -4 -16 0 -22 4 L -40 4 Z"
    patched(canvas, (SITTING, HIP), [(saddle, soot), (haunch, ginger)])
    canvas.stroke("M -25 -19 C -13 -25 -4 -18 -4 -6", CREAM.line, 1.8, opacity=0.7)
    paws = [(oval(5, -5, 8, 5), CREAM.base), (oval(20, -5, 8, 5), CREAM.base)]
    solid(canvas, paws, CREAM.rim, 3)
    canvas.stroke("M 12.5 -22 L 12.5 -6", CREAM.line, 1.8)
    _bow(canvas, (5, -37))
    _head(canvas, (4, -67), rng.uniform(-7, 7))


def stand(canvas: Canvas, rng: Random) -> None:
    """Paint Momo standing, the tail up."""
    x, step = -47 + rng.uniform(-2, 3), rng.uniform(-2, 2)
    curl = f"C {x - 1} -64 {x} -72 {x + 7} -74"
    tail(canvas, f"M -34 -34 C {x} -40 {x - 3} -46", (x - 2, -54), curl, GINGER)
    far = [(post(place, -26, 4.6), CREAM.far()) for place in (-19 - step, 2 + step)]
    solid(canvas, far, CREAM.rim)
    body = CREAM.round(canvas, (-8, -32), 36)
    near = [(post(place, -28, 5.4), CREAM.base) for place in (-33 + step, 14 - step)]
    solid(canvas, [*near, (STANDING, body)], CREAM.rim)
    ginger, soot = _patches(canvas, (-32, -28), (-12, -38))
    saddle = "M -23 -60 C -24 -42 -21 -28 -12 -31 C -4 -24 6 -28 6 -44 L 6 -60 Z"
    haunch = "M -46 -52 L -29 -50 C -26 -40 -24 -34 -25 -27 C -28 -20 -34 -12 -46 -10 Z"
    patched(canvas, (STANDING,), [(haunch, ginger), (saddle, soot)])
    _bow(canvas, (12, -29))
    _head(canvas, (11, -60), rng.uniform(-7, 7))


def lie(canvas: Canvas, rng: Random) -> None:
    """Paint Momo lying with the paws tucked in and the tail about them."""
    body = CREAM.round(canvas, (-6, -26), 36)
    solid(canvas, [(LYING, body)], CREAM.rim)
    ginger, soot = _patches(canvas, (-32, -20), (-12, -32))
    saddle = "M -26 -54 C -26 -36 -20 -26 -11 -29 C -4 -22 6 -26 8 -38 L 8 -54 Z"
    haunch = "M -54 -46 L -31 -46 C -28 -36 -24 -28 -25 -20 C -27 -10 -36 -4 -54 -2 Z"
    patched(canvas, (LYING,), [(haunch, ginger), (saddle, soot)])
    solid(canvas, [(oval(21, -5, 9, 5), CREAM.base)], CREAM.rim, 3)
    tip = 6 + rng.uniform(-5, 3)
    tail(canvas, "M -40 -7 C -32 -3 -24 -3", (-16, -5), f"Q {tip - 10} -8 {tip} -6", GINGER)
    _bow(canvas, (13, -18))
    _head(canvas, (12, -50), rng.uniform(-7, 7))


def _patches(canvas: Canvas, ginger: Point, soot: Point) -> tuple[str, str]:
    """Return the paints of a ginger and of a dark patch about these points."""
    return fur(GINGER).round(canvas, ginger, 20), fur(SOOT).round(canvas, soot, 22)


def _bow(canvas: Canvas, at: Point) -> None:
    """Draw the collar, its bow and the bell upon it."""
    ribbon = fur(RASPBERRY)
    with canvas.group(move=at):
        rope(canvas, "M -18 -9 Q 0 5 18 -9", ribbon.shade, ribbon.rim, 5)
        solid(canvas, [(BOW, ribbon.base)], ribbon.rim, 3.4)
        canvas.stroke("M -13 -2 L -7 0 M 13 -2 L 7 0", ribbon.rim, 1.4, opacity=0.8)
        medal(canvas, (0, 1), 5.4)
        canvas.stroke("M -3 2.5 L 3 2.5", BRASS, 1.3)


def _head(canvas: Canvas, at: Point, turn: float) -> None:
    with canvas.group(move=at, turn=turn):
        ginger, soot = _patches(canvas, (20, -8), (-18, -8))
        ears = [(LEFT_EAR, SOOT), (RIGHT_EAR, GINGER)]
        solid(canvas, [*ears, (FACE, CREAM.round(canvas, (0, 0), 34))], CREAM.rim)
        canvas.polygon([(-23, -18), (-22, -28), (-12, -22)], CREAM.blush)
        canvas.polygon([(23, -18), (22, -28), (12, -22)], CREAM.blush)
        patched(canvas, (FACE,), [(LEFT_MASK, soot), (RIGHT_MASK, ginger)])
        canvas.ellipse((3, 11), 14, 8.5, CREAM.pale)
        eye(canvas, (-11.5, -1), 7.6, iris="#f0b429")
        eye(canvas, (15, -1), 7.6, iris="#49a6e8")
        canvas.path("M -0.8 6 L 6.8 6 L 3 10.5 Z", "#e0708a", stroke=INK, stroke_width=1)
        canvas.stroke("M 3 10.5 Q 1.5 15 -4 14 M 3 10.5 Q 4.5 15 10 14", INK, 1.7)
        whiskers = "M -14 9 L -38 5 M -14 13 L -37 15 M 19 9 L 41 5 M 19 13 L 40 15"
        canvas.stroke(whiskers, CREAM.line, 1.5)


MOMO = Subject(
    name="momo",
    thing="cat",
    poses=(sit, stand, lie),
    marks=(GINGER, RASPBERRY, GOLD),
    lopsided=True,
)
