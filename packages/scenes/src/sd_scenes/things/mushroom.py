"""A mushroom."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import ball_paint, gleam, rim, shape

CAP = "M -48 -38 C -54 -74 -26 -97 0 -97 C 26 -97 54 -74 48 -38 C 46 -29 -46 -29 -48 -38 Z"
STEM = "M -15 -38 Q -13 -22 -19 -6 Q -20 0 -13 0 L 13 0 Q 20 0 19 -6 Q 13 -22 15 -38 Z"


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a mushroom with a big dotted cap."""
    flesh = canvas.linear((-16, 0), (18, 0), [(0.0, "#fff8e8"), (0.5, "#f0e2c4"), (1.0, "#c4ad86")])
    shape(canvas, STEM, flesh, "#6f5a44")
    shape(canvas, CAP, ball_paint(canvas, colour, (0, -62), 46), rim(colour))
    _gills(canvas)
    _dots(canvas, colour, rng)
    gleam(canvas, (-25, -82), 8)


def _gills(canvas: Canvas) -> None:
    shape(canvas, "M -37 -36 C -25 -44 25 -44 37 -36 C 26 -29.5 -26 -29.5 -37 -36 Z",
          "#e6d3ae", "#6f5a44", 1.8)  # fmt: skip
    canvas.stroke("M -20 -35 L -14 -39 M 20 -35 L 14 -39", "#a58c66", 1.5)
    canvas.path("M -15 -33 Q 0 -41 15 -33 Q 0 -28 -15 -33 Z", "#fbf1dc")


def _dots(canvas: Canvas, colour: Colour, rng: Random) -> None:
    pale = "#c9a27c" if colour.name == "white" else "#fff6e6"
    spots = [(-8, -76, 9), (18, -68, 8), (-31, -58, 7), (5, -53, 6), (36, -50, 5.5), (6, -91, 4.5)]
    with canvas.clip(CAP):
        for x, y, size in spots:
            centre = (x + rng.uniform(-3, 3), y + rng.uniform(-2, 2))
            canvas.ellipse(centre, size * rng.uniform(0.9, 1.1), 0.85 * size, pale)


MUSHROOM = Thing(
    name="mushroom",
    plural="mushrooms",
    draw=draw,
    usual=("red", "red", "brown", "orange"),
    width=100,
    height=98,
    scale=0.75,
)
