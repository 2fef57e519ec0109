"""A cloud."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a puffy cloud with a flat foot, light on top."""
    top = rng.uniform(19, 22)
    puffs = [
        (-32.0, -16.0, 16.0),
        (-14.0, -30.0, top),
        (11.0, -34.0 + rng.uniform(-2, 2), top + 1),
        (32.0, -17.0, 17.0),
    ]
    skin = canvas.linear(
        (-6, -58),
        (2, 0),
        [(0, colour.light), (0.6, colour.base), (1, colour.towards("#2a3658", 0.2))],
    )
    rim = colour.towards("#3a4a68", 0.45)
    for x, y, radius in puffs:
        canvas.circle((x, y), radius, rim)
    canvas.rect((-48.5, -20), 97, 20, rim, radius=10)
    for x, y, radius in puffs:
        canvas.circle((x, y), radius - 1.4, skin)
    canvas.rect((-47, -18.6), 94, 17.2, skin, radius=8.6)
    canvas.ellipse((-18, -38), 9, 6, colour.towards("#ffffff", 0.8), angle=-25, opacity=0.7)


CLOUD = Thing(
    name="cloud",
    plural="clouds",
    draw=draw,
    usual=("white", "grey"),
    height=57,
    habitat=("sky",),
)
