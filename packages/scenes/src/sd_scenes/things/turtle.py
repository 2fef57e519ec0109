"""A turtle."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._parts import INK, Coat, blinks, eye, oval, post, smile, solid

SHELL = "M -44 -20 C -44 -54 -26 -68 -8 -68 C 12 -68 30 -52 30 -20 Z"
BRIM = "M -44 -24 L 29 -24 C 37 -24 37 -14 29 -14 L -44 -14 C -52 -14 -52 -24 -44 -24 Z"
PLATES = (
    "M -18 -60 L -2 -60 L 5 -46 L -3 -33 L -17 -33 L -25 -46 Z",
    "M -38 -42 L -31 -46 L -23 -33 L -27 -25 L -40 -25 Z",
    "M 11 -46 L 20 -44 L 26 -25 L 7 -25 L 3 -33 Z",
)


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a turtle on its feet, with a domed shell of many plates."""
    coat = Coat.of(colour)
    step = rng.uniform(-3, 3)
    solid(canvas, [("M -36 -22 L -52 -7 L -32 -12 Z", coat.pale)], coat.rim)
    far = [(post(x, -20, 5.5), coat.far()) for x in (-13 - step, 5 + step)]
    solid(canvas, far, coat.rim)
    with canvas.group(move=(35, -38), turn=rng.uniform(-10, 8)):
        _head(canvas, coat, rng)
    legs = [(post(x, -22, 7), coat.pale) for x in (-32 + step, 20 - step)]
    solid(canvas, legs, coat.rim)
    _shell(canvas, coat)


def _shell(canvas: Canvas, coat: Coat) -> None:
    solid(canvas, [(SHELL, coat.round(canvas, (-8, -40), 36))], coat.rim)
    style: dict[str, str | float] = {
        "stroke": coat.line,
        "stroke_width": 2,
        "stroke_linejoin": "round",
    }
    for plate in PLATES:
        canvas.path(plate, coat.shade, opacity=0.75, **style)
    brim = canvas.linear((-46, 0), (32, 0), [(0, coat.lit), (1, coat.base)])
    solid(canvas, [(BRIM, brim)], coat.rim, 3.6)
    canvas.ellipse((-24, -57), 8, 3.5, "#ffffff", angle=-32, opacity=0.4)


def _head(canvas: Canvas, coat: Coat, rng: Random) -> None:
    skin = canvas.radial((-5, -8), 28, [(0, coat.pale), (1, coat.lit)])
    neck = "M -22 26 C -12 16 -14 4 -10 -4 L 10 6 C 6 16 0 22 -4 26 Z"
    solid(canvas, [(neck, coat.pale), (oval(2, -3, 16, 14.5), skin)], coat.rim)
    eye(canvas, (6, -6), 5.8, shut=blinks(rng))
    smile(canvas, (10, 3), 9, INK)


TURTLE = Thing(
    name="turtle",
    plural="turtles",
    draw=draw,
    usual=("green", "brown"),
    width=108,
    height=71,
    scale=0.8,
)
