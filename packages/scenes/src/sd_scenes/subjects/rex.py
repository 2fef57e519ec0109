"""Rex: a dog of cream and russet, one ear up and one dark ear down, in a teal neckerchief."""

from random import Random

from sd_scenes.canvas import Canvas, Point
from sd_scenes.colours import mix
from sd_scenes.subject import Subject
from sd_scenes.subjects._marks import CREAM, GOLD, SOOT, medal, tail
from sd_scenes.things._marks import fur, kerchief, patched
from sd_scenes.things._parts import INK, eye, oval, post, solid
from sd_scenes.things.dog import (
    EAR,
    MASK,
    PRICKED,
    SADDLE,
    SITTING,
    SITTING_SADDLE,
    SKULL,
    STANDING,
)

RUSSET, TEAL = "#b4581f", "#149c94"
# At full size the ear that stands up would reach out of an ordinary dog's box.
SCALE = 0.85

HAUNCH = oval(-26, -32, 12, 14)
NECK = "M -6 -46 C 0 -56 2 -68 8 -76 L 32 -62 C 31 -54 28 -46 26 -38 Z"
LYING = (
    "M -46 -12 C -48 -32 -28 -40 -6 -38 C 6 -48 10 -54 14 -58 L 36 -46 "
    "C 36 -34 36 -18 34 0 L -36 0 C -42 0 -46 -5 -46 -12 Z"
)


def stand(canvas: Canvas, rng: Random) -> None:
    """Paint Rex standing, the tail up."""
    wag, step = rng.uniform(-7, 7), rng.uniform(-2, 4)
    with canvas.group(scale=SCALE):
        bend = (-43 + wag / 3, -56.0)
        _tail(canvas, "M -32 -40 C -38 -44 -42 -48", bend, (-40 + wag, -76))
        far = [(post(x, -30, 5), CREAM.far()) for x in (-14 - step, 7 + step)]
        solid(canvas, far, CREAM.rim)
        body = CREAM.round(canvas, (-4, -36), 40)
        near = [(post(x, -32, 6), CREAM.base) for x in (-30 + step, 21 - step)]
        solid(canvas, [*near, (STANDING, body), (HAUNCH, body), (NECK, body)], CREAM.rim)
        russet = fur(RUSSET).round(canvas, (-14, -44), 26)
        patched(canvas, (STANDING,), [(SADDLE, russet)])
        _kerchief(canvas, (12, -53))
        _head(canvas, (15, -75), rng.uniform(-9, 5), rng)


def sit(canvas: Canvas, rng: Random) -> None:
    """Paint Rex sitting."""
    wag = rng.uniform(-5, 5)
    with canvas.group(scale=SCALE):
        bend = (-40.0, -10 + wag / 3)
        _tail(canvas, "M -16 -8 C -26 -5 -34 -5", bend, (-47 + wag, -32 + wag))
        body = CREAM.round(canvas, (-2, -34), 38)
        solid(canvas, [(post(10, -30, 5), CREAM.far())], CREAM.rim)
        solid(canvas, [(post(17, -34, 6), CREAM.base), (SITTING, body), (NECK, body)], CREAM.rim)
        canvas.path("M 11.5 -30 L 11.5 0 L 22 0 L 23 -32 Z", CREAM.base)
        canvas.stroke("M 11 -26 L 11 -4", CREAM.line, 1.8, opacity=0.7)
        russet = fur(RUSSET).round(canvas, (-14, -48), 24)
        patched(canvas, (SITTING,), [(SITTING_SADDLE, russet)])
        thigh = [(oval(-15, -14, 14, 13.5), body), (oval(-6, -4.5, 14, 4.8), CREAM.base)]
        solid(canvas, thigh, CREAM.rim, 3)
        _kerchief(canvas, (8, -53))
        _head(canvas, (9, -75), rng.uniform(-9, 5), rng)


def lie(canvas: Canvas, rng: Random) -> None:
    """Paint Rex lying, the paws stretched out."""
    wag = rng.uniform(-6, 4)
    with canvas.group(scale=SCALE):
        _tail(canvas, "M -38 -8 C -44 -6 -50 -7", (-54, -12), (-56 - wag / 2, -32))
        solid(canvas, [(oval(40, -6, 16, 5), CREAM.far())], CREAM.rim)
        body = CREAM.round(canvas, (-6, -26), 38)
        solid(canvas, [(LYING, body)], CREAM.rim)
        russet = fur(RUSSET).round(canvas, (-14, -32), 24)
        back = "M -38 -44 C -38 -24 -30 -14 -19 -19 C -12 -11 0 -15 3 -26 C 6 -34 2 -50 -4 -50 Z"
        patched(canvas, (LYING,), [(back, russet)])
        hind = [(oval(-31, -12, 14, 11.5), body), (oval(-22, -4.8, 15, 4.8), CREAM.base)]
        solid(canvas, hind, CREAM.rim, 3)
        solid(canvas, [(oval(32, -5.2, 20, 5.2), CREAM.base)], CREAM.rim, 3)
        _kerchief(canvas, (17, -36))
        _head(canvas, (19, -58), rng.uniform(-8, 6), rng)


def _tail(canvas: Canvas, root: str, bend: Point, tip: Point) -> None:
    """Draw a cream tail up to the ``bend``, its dark end from there to the ``tip``."""
    swing = f"Q {bend[0] - 4:.2f} {(bend[1] + tip[1]) / 2:.2f} {tip[0]:.2f} {tip[1]:.2f}"
    tail(canvas, root, bend, swing, CREAM.base)


def _kerchief(canvas: Canvas, knot: Point) -> None:
    """Draw the neckerchief: a band about the neck, a corner on the chest, and the tag."""
    kerchief(canvas, knot, fur(TEAL), mix(TEAL, "#ffffff", 0.2))
    with canvas.group(move=knot):
        for spot in ((-4.0, 12.0), (3.0, 21.0), (19.0, 12.5)):
            canvas.circle(spot, 1.9, "#f2fffb")
        medal(canvas, (9, 12.5), 5.6)


def _head(canvas: Canvas, at: Point, turn: float, rng: Random) -> None:
    russet, soot = fur(RUSSET), fur(SOOT)
    with canvas.group(move=at, turn=turn):
        solid(canvas, [(PRICKED, russet.far())], CREAM.rim)
        canvas.path("M 1 -18 C 0 -28 2 -34 6 -37.5 C 12 -33 14 -27 14 -18 Z", CREAM.blush)
        canvas.path("M 16 11 C 15 25 27 27 27 10 Z", "#f2708c", stroke=INK, stroke_width=1.6)
        solid(canvas, [(SKULL, CREAM.round(canvas, (6, -4), 32))], CREAM.rim)
        patched(canvas, (SKULL,), [(MASK, russet.round(canvas, (4, -12), 22))])
        canvas.ellipse((25, 4), 10, 8, CREAM.pale)
        for spot in ((20.0, 3.0), (24.0, 0.5), (24.0, 6.0)):
            canvas.circle(spot, 0.9, RUSSET)
        canvas.stroke("M 33 7 Q 26 15 12 11", INK, 2)
        canvas.ellipse((33, -5), 6, 5, INK)
        canvas.ellipse((31.5, -6.8), 1.8, 1.2, "#ffffff", opacity=0.8)
        eye(canvas, (9, -9), 6.8)
        with canvas.group(move=(-11, -17), turn=rng.uniform(-4, 12)):
            flap = canvas.linear((-8, 0), (6, 30), [(0, SOOT), (1, soot.shade)])
            solid(canvas, [(EAR, flap)], CREAM.rim)


REX = Subject(name="rex", thing="dog", poses=(stand, sit, lie), marks=(RUSSET, TEAL, GOLD))
