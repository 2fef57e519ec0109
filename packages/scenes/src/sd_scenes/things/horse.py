"""A horse."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour, mix
from sd_scenes.thing import Thing
from sd_scenes.things._parts import INK, Coat, blinks, eye, oval, post, solid

TRUNK = (
    "M -36 -50 C -37 -64 -20 -65 -6 -61 C 5 -62 10 -74 14 -84 L 32 -72 "
    "C 31 -62 30 -54 25 -45 C 16 -38 -4 -38 -14 -40 C -26 -36 -35 -38 -36 -50 Z"
)
HEAD = (
    "M -12 4 C -14 -11 -4 -18 6 -16 C 14 -13 22 -2 28 7 C 31 15 24 20 17 17 "
    "C 10 14 6 12 0 14 C -6 16 -11 12 -12 4 Z"
)
MANE = (
    "M 8 -86 C 12 -99 24 -101 30 -92 C 25 -86 18 -82 15 -74 C 14 -66 8 -58 -3 -57 "
    "C 1 -60 -1 -63 2 -66 C 4 -70 2 -74 5 -77 C 7 -80 6 -83 8 -86 Z"
)
HIPS = (-29.0, -14.0, 8.0, 21.0)


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a horse from the side: long legs, an arched neck, mane and tail."""
    coat = Coat.of(colour)
    hair = "#6c6f86" if colour.name == "black" else mix(colour.deep, colour.dark, 0.2)
    x = -47 + rng.uniform(-4, 5)
    tail = f"M -31 -60 C -46 -66 -52 -44 {x} -18 C {x + 8} -20 {x + 15} -34 -31 -46 Z"
    solid(canvas, [(tail, hair)], coat.rim)
    _body(canvas, coat, rng)
    with canvas.group(move=(24, -78), turn=rng.uniform(-8, 8)):
        _head(canvas, coat, rng)
    solid(canvas, [(MANE, hair)], coat.rim, 2.6)


def _body(canvas: Canvas, coat: Coat, rng: Random) -> None:
    step = rng.uniform(-1.5, 3)
    hoof = mix(coat.shade, INK, 0.6)
    back, far_back, far_front, front = (
        x + s * step for x, s in zip(HIPS, (1, -1, 1, -1), strict=True)
    )
    far = [
        (post(far_back, -46, 3.6, 1.5, -3), coat.far()),
        (post(far_front, -46, 3.6, 1.5, 2), coat.far()),
    ]
    solid(canvas, far, coat.rim)
    near = [
        (post(back, -46, 4.2, 1.5, 2), coat.base),
        (post(front, -48, 4.2, 1.5, -2), coat.base),
        (oval(-25, -48, 10, 12), coat.base),
    ]
    solid(canvas, [*near, (TRUNK, coat.round(canvas, (-4, -54), 36))], coat.rim)
    for x, half in ((far_back, 3.6), (far_front, 3.6), (back, 4.2), (front, 4.2)):
        canvas.rect((x - half, -6), 2 * half + 1.5, 6, hoof, radius=1.8)


def _head(canvas: Canvas, coat: Coat, rng: Random) -> None:
    ears = [
        ("M -5 -13 C -6 -20 -4 -23 -1 -25 C 3 -22 4 -18 4 -13 Z", coat.base),
        ("M 3 -13 C 3 -19 5 -21 8 -23 C 11 -20 11 -16 10 -11 Z", coat.far()),
    ]
    solid(canvas, [*ears, (HEAD, coat.round(canvas, (4, 0), 24))], coat.rim)
    canvas.ellipse((20.5, 10), 8, 6.2, coat.pale, angle=38)
    canvas.ellipse((23, 8), 1.5, 1.9, INK)
    canvas.stroke("M 22 15.5 Q 17 15 14 12", INK, 1.6)
    eye(canvas, (5, -3), 5.2, shut=blinks(rng))


HORSE = Thing(
    name="horse",
    plural="horses",
    draw=draw,
    usual=("brown", "white", "black", "grey"),
    width=108,
    height=106,
    scale=1.6,
)
