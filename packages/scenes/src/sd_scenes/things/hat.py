"""A hat."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import ball_paint, gleam, rim, shape, sheet_paint

BRIM = "M -50 -13 C -46 -28 46 -28 50 -13 C 46 3 -46 3 -50 -13 Z"
CROWN = (
    "M -29 -17 C -28 -38 -26 -62 -15 -63 C -7 -64 -5 -58 2 -58 C 9 -58 11 -64 18 -62 "
    "C 26 -59 28 -38 29 -17 C 20 -9 -20 -9 -29 -17 Z"
)
BAND = "M -29 -17 L -27.5 -30 C -14 -23 14 -23 27.5 -30 L 29 -17 C 20 -9 -20 -9 -29 -17 Z"


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a felt hat with a wide brim and a ribbon."""
    outline = rim(colour)
    shape(canvas, BRIM, sheet_paint(canvas, colour, (-30, -30), (20, 6)), outline)
    canvas.ellipse((2, -13), 36, 7, colour.dark, opacity=0.55)
    shape(canvas, CROWN, ball_paint(canvas, colour, (0, -38), 34), outline)
    shape(canvas, BAND, _ribbon(colour, rng), outline, 1.6)
    canvas.stroke("M -2 -57 Q 1 -50 4 -57", outline, 1.6, opacity=0.7)
    gleam(canvas, (-17, -48), 7, -75)


def _ribbon(colour: Colour, rng: Random) -> str:
    tones = {"#f4e6c4": "white yellow", "#b5352f": "red orange brown pink", "#39405e": "blue black"}
    fitting = [tone for tone, clash in tones.items() if colour.name not in clash.split()]
    return rng.choice(fitting)


HAT = Thing(
    name="hat",
    plural="hats",
    draw=draw,
    usual=("brown", "black", "red", "blue", "yellow"),
    width=102,
    height=65,
    scale=0.65,
)
