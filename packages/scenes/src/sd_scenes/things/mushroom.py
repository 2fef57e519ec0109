"""A mushroom."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import ball_paint, gleam, rim, shape

CAP = "M -48 -34 C -54 -72 -26 -97 0 -97 C 26 -97 54 -72 48 -34 C 46 -25 -46 -25 -48 -34 Z"
STEM = "M -14 -34 Q -13 -20 -18 -6 Q -19 -1 -12 -1 L 12 -1 Q 19 -1 18 -6 Q 13 -20 14 -34 Z"


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a mushroom with a big dotted cap."""
    flesh = canvas.linear((-16, 0), (18, 0), [(0.0, "#fff8e8"), (0.5, "#f0e2c4"), (1.0, "#c4ad86")])
    shape(canvas, STEM, flesh, "#6f5a44")
    shape(canvas, CAP, ball_paint(canvas, colour, (0, -60), 47), rim(colour))
    _gills(canvas)
    _dots(canvas, colour, rng)
    gleam(canvas, (-25, -82), 8)


def _gills(canvas: Canvas) -> None:
    shape(canvas, "M -33 -31.5 C -23 -38 23 -38 33 -31.5 C 23 -26 -23 -26 -33 -31.5 Z",
          "#e6d3ae", "#6f5a44", 1.8)  # fmt: skip
    canvas.stroke("M -21 -31.5 L -16 -34 M 21 -31.5 L 16 -34", "#a58c66", 1.5)
    canvas.path("M -13 -29.5 Q 0 -35 13 -29.5 Q 0 -24 -13 -29.5 Z", "#fbf1dc")


def _dots(canvas: Canvas, colour: Colour, rng: Random) -> None:
    pale = "#c9a27c" if colour.name == "white" else "#fff6e6"
    spots = [
        (-8, -74, 8.5),
        (19, -67, 7),
        (-31, -56, 6.5),
        (4, -50, 5.5),
        (36, -48, 5),
        (8, -90, 4),
    ]
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
