"""A book."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import RIM, accent, heart, lit, rim, shade, shape, star_points

COVER = "M -32 -1 L -32 -84 L 28 -84 Q 31 -84 31 -81 L 31 -4 Q 31 -1 28 -1 Z"


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a closed book that stands upright, its pages seen from above and from the side."""
    outline = rim(colour)
    shape(
        canvas, "M -40 -84 L -22 -99 L 41 -99 L 41 -15 L 31 -1 L -32 -1 Z", shade(colour), outline
    )
    _pages(canvas)
    shape(canvas, "M -32 -1 L -32 -84 L -40 -84 L -40 -4 Q -40 -1 -36 -1 Z", shade(colour), outline)
    cover = canvas.linear(
        (-32, -84), (34, 0), [(0.0, lit(colour)), (0.3, colour.base), (1.0, colour.base)]
    )
    shape(canvas, COVER, cover, outline)
    canvas.stroke("M -25 -80 L -25 -5", outline, 1.8, opacity=0.5)
    mark = accent(colour)
    emblem = rng.choice(("star", "heart", "disc"))
    if emblem == "star":
        canvas.polygon(star_points((3, -32), 15), mark, stroke=mark, stroke_width=2)
    elif emblem == "heart":
        canvas.path(heart((3, -33), 27), mark)
    else:
        canvas.circle((3, -33), 12, mark)
    canvas.stroke("M -13 -69 L 19 -69 M -7 -60 L 13 -60", mark, 4)


def _pages(canvas: Canvas) -> None:
    shape(canvas, "M -33 -86 L -20 -96 L 36 -96 L 27 -86 Z", "#fff9ea", "#8a7757", 1.4)
    shape(canvas, "M 31 -83 L 38 -93 L 38 -16 L 31 -5 Z", "#e6d6b4", "#8a7757", 1.4)
    canvas.stroke("M -27 -89 L 31 -89 M -23 -92.5 L 33 -92.5", "#b7a47e", 0.5 * RIM)


BOOK = Thing(
    name="book",
    plural="books",
    draw=draw,
    usual=("red", "blue", "green", "brown", "purple"),
    width=84,
    height=100,
    scale=0.7,
)
