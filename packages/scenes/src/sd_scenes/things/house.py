"""A house."""

from random import Random

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour, mix
from sd_scenes.thing import Thing
from sd_scenes.things._shapes import CREAM, glass, rim, shade, shape, sheet_paint

WALL = "M -40 -1 L -40 -52 L 0 -86 L 40 -52 L 40 -1 Z"
ROOF = "M -47 -46 L 0 -88.5 L 47 -46 L 47 -56 L 0 -98.5 L -47 -56 Z"
WARM = {"red", "orange", "brown", "pink"}


def draw(canvas: Canvas, colour: Colour, rng: Random) -> None:
    """Paint a small gabled house with a door, windows and a chimney."""
    tiles = "#4a5670" if colour.name in WARM else "#b04a34"
    outline = rim(colour)
    side = rng.choice((-1, 1))
    _chimney(canvas, 24 * side)
    shape(canvas, WALL, sheet_paint(canvas, colour, (-42, -60), (44, 0)), outline)
    canvas.polygon(
        [(-39, -51), (0, -86), (39, -51), (39, -46), (0, -81), (-39, -46)], shade(colour)
    )
    roof = canvas.linear((-30, -96), (30, -46), [(0.0, mix(tiles, "#ffffff", 0.22)), (1.0, tiles)])
    shape(canvas, ROOF, roof, mix(tiles, "#160e24", 0.6))
    _door(canvas, -15 * side, rng.choice(("#7a4a2c", "#8a3f36", "#3f6f78")), colour)
    _window(canvas, 17 * side, -28, outline)
    canvas.circle((0, -62), 6, glass(canvas, -69, -54), stroke=CREAM, stroke_width=2.4)
    canvas.stroke("M -5 -62 L 5 -62 M 0 -67 L 0 -57", CREAM, 1.6)


def _chimney(canvas: Canvas, x: float) -> None:
    canvas.rect((x - 6, -97), 12, 32, "#9a6a55", stroke="#4b2f2a", stroke_width=2)
    canvas.rect((x - 8, -99), 16, 6, "#b98470", radius=1, stroke="#4b2f2a", stroke_width=1.8)


def _door(canvas: Canvas, x: float, wood: str, colour: Colour) -> None:
    if colour.name == "brown" and wood == "#7a4a2c":
        wood = "#3f6f78"
    d = f"M {x - 9:.2f} -1 L {x - 9:.2f} -24 Q {x:.2f} -36 {x + 9:.2f} -24 L {x + 9:.2f} -1"
    canvas.path(d, wood, stroke=CREAM, stroke_width=2.6)
    canvas.circle((x + 5, -13), 1.8, "#ffdf7a")


def _window(canvas: Canvas, x: float, y: float, outline: str) -> None:
    pane = glass(canvas, y - 10, y + 10)
    canvas.rect((x - 10.5, y - 10), 21, 20, pane, radius=1.5, stroke=outline, stroke_width=5)
    canvas.rect((x - 10.5, y - 10), 21, 20, pane, radius=1, stroke=CREAM, stroke_width=3)
    canvas.stroke(f"M {x:.2f} {y - 9:.2f} v 18 M {x - 9:.2f} {y:.2f} h 18", CREAM, 2)


HOUSE = Thing(
    name="house",
    plural="houses",
    draw=draw,
    usual=("white", "yellow", "red", "blue", "brown"),
    width=94,
    height=100,
    scale=1.6,
)
