"""The places that things stand on, each painted from its horizon to the foot of the picture."""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sin
from random import Random

from sd_scenes.backgrounds import INDOORS, NIGHT, lit
from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour, mix

WOODS = ("#c99a66", "#b98452", "#dcb98c", "#a87448")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a place lies in the picture.

    ``horizon`` is where the ground ends, ``rear`` where a mat or a rug begins (y in units of a
    128 unit picture), ``colour`` that of the mat or rug, ``background`` gives the light.
    """

    horizon: float
    rear: float
    background: str
    colour: Colour | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place; ``coloured`` ones take any colour and lie on a floor or on the grass."""

    name: str
    paint: Callable[[Canvas, Setting, Random], None]
    coloured: bool = False
    indoors: bool = False


def _ground(canvas: Canvas, at: Setting, far: str, near: str) -> None:
    top, y = lit(far, at.background), at.horizon
    paint = canvas.linear((0, y), (0, 128), [(0, top), (1, lit(near, at.background))])
    canvas.rect((0, y), 128, 128 - y, paint)


def _down(at: Setting, rng: Random) -> float:
    """Return a y on the ground, the far ones as frequent as the eye sees them."""
    return at.horizon + (126 - at.horizon) * float(rng.random() ** 0.8)


def _grass(canvas: Canvas, at: Setting, rng: Random) -> None:
    _ground(canvas, at, "#8ecb62", "#4c9a3c")
    blade, tip = lit("#37802f", at.background), lit("#a8dc74", at.background)
    for _ in range(26):
        x, y = rng.uniform(1, 127), _down(at, rng)
        size = 1.6 + 3.4 * (y - at.horizon) / (128 - at.horizon)
        shape = f"M {x - size * 0.6} {y - size} L {x} {y} L {x + 0.1} {y - size * 1.3} "
        canvas.stroke(
            shape + f"M {x} {y} L {x + size * 0.7} {y - size}", rng.choice((blade, tip)), 0.7
        )
    for _ in range(rng.choice((0, 0, 4, 7))):
        canvas.circle((rng.uniform(2, 126), _down(at, rng)), 1.1, lit("#fdf6d2", at.background))


def _sand(canvas: Canvas, at: Setting, rng: Random) -> None:
    _ground(canvas, at, "#f5e2ad", "#dfba74")
    for row in range(6):
        y = at.horizon + 5 + (122 - at.horizon) * (row / 6) ** 1.2
        phase, rise = rng.uniform(0, 6), 1 + row * 0.35
        points = [(x, y + rise * sin(x / 17 + phase)) for x in range(-4, 134, 8)]
        line = "M " + " L ".join(f"{x} {h:.1f}" for x, h in points)
        canvas.stroke(line, lit("#c99f5c", at.background), 0.9, opacity=0.55)
    for _ in range(30):
        dot = rng.choice(("#b98d4e", "#fff3cf"))
        canvas.circle((rng.uniform(0, 128), _down(at, rng)), 0.5, lit(dot, at.background))


def _snow(canvas: Canvas, at: Setting, rng: Random) -> None:
    _ground(canvas, at, "#f4f8fd", "#d5e2f1")
    for row in range(3):
        y = at.horizon + 6 + row * (118 - at.horizon) / 3
        spot = (rng.uniform(0, 128), y + 9)
        shade = canvas.linear(
            (0, y),
            (0, y + 14),
            [(0, lit("#ffffff", at.background)), (1, lit("#d9e6f4", at.background))],
        )
        canvas.ellipse(spot, rng.uniform(36, 58), rng.uniform(7, 10), shade, opacity=0.85)
    if rng.random() < 0.6:
        for _ in range(26):
            flake = (rng.uniform(0, 128), rng.uniform(0, 124))
            canvas.circle(flake, rng.uniform(0.6, 1.2), "#ffffff", opacity=0.9)


def _floor(canvas: Canvas, at: Setting, rng: Random) -> None:
    # A brown cloth on dark wood would be lost.
    pale = at.colour is not None and at.colour.name in ("brown", "orange", "black")
    wood = rng.choice(WOODS[2:3] if pale else WOODS)
    _ground(canvas, at, mix(wood, "#ffffff", 0.18), mix(wood, "#2a1408", 0.12))
    seam = lit(mix(wood, "#2a1408", 0.42), at.background)
    sheen = lit(mix(wood, "#ffffff", 0.4), at.background)
    drop = 128 - at.horizon
    for i in range(-7, 8):
        x = 64 + i * 9.0 + 4
        foot = 64 + (x - 64) * 2.1
        canvas.stroke(f"M {x} {at.horizon} L {foot} 128", seam, 0.7, opacity=0.7)
        cut = at.horizon + drop * rng.uniform(0.15, 0.95)
        part = (cut - at.horizon) / drop
        left = x + (foot - x) * part
        canvas.stroke(
            f"M {left} {cut} L {left + 9 * (1 + 1.1 * part)} {cut}", seam, 0.7, opacity=0.7
        )
    canvas.rect((0, at.horizon), 128, 2, sheen, opacity=0.4)


def _road(canvas: Canvas, at: Setting, rng: Random) -> None:
    _grass(canvas, at, rng)
    top, foot = max(at.horizon + 4, at.rear), 124.0
    tar = canvas.linear(
        (0, top),
        (0, foot),
        [(0, lit("#7b7e86", at.background)), (1, lit("#5b5d66", at.background))],
    )
    canvas.rect((0, top), 128, foot - top, tar)
    for y, width in ((top, 1.6), (foot - 2.4, 2.4)):
        canvas.rect((0, y), 128, width, lit("#d9d6cc", at.background))
    middle, start = top + (foot - top) * 0.5, rng.uniform(-20, 0)
    for i in range(6):
        x = start + i * 28
        dash = [(x, middle + 3), (x + 2, middle), (x + 16, middle), (x + 15, middle + 3)]
        canvas.polygon(dash, lit("#f4e6a0", at.background))


def _water(canvas: Canvas, at: Setting, rng: Random) -> None:
    far, near = ("#5a74b0", "#27407e") if at.background == NIGHT else ("#8fd0e8", "#2b78bd")
    _ground(canvas, at, far, near)
    drop = 128 - at.horizon
    for row in range(9):
        part = (row + 0.5) / 9
        y, size = at.horizon + drop * part**1.2, 3 + 7 * part
        for _ in range(2):
            x = rng.uniform(0, 128)
            wave = f"M {x - size} {y} Q {x - size / 2} {y - size * 0.3} {x} {y} T {x + size} {y}"
            shade = lit(rng.choice(("#d8f3fb", "#b5e2f4", "#2a6cab")), at.background)
            canvas.stroke(wave, shade, 0.6 + 0.8 * part, opacity=0.7)


def _under(canvas: Canvas, at: Setting, rng: Random) -> None:
    (_floor if at.background == INDOORS else _grass)(canvas, at, rng)


def _mat(canvas: Canvas, at: Setting, rng: Random) -> None:
    """Paint a plain mat with a border, in perspective."""
    _under(canvas, at, rng)
    colour = at.colour or Colour.named("red")
    canvas.polygon(
        [(14, at.rear + 2), (116, at.rear + 2), (128, 126), (2, 126)], "#1a1220", opacity=0.3
    )
    cloth = canvas.linear(
        (0, at.rear),
        (0, 124),
        [
            (0, lit(colour.towards("#ffffff", 0.12), at.background)),
            (1, lit(colour.base, at.background)),
        ],
    )
    rim = lit(colour.dark, at.background)
    edge = [(14, at.rear), (114, at.rear), (125, 123), (3, 123)]
    canvas.polygon(edge, cloth, stroke=rim, stroke_width=1.6, stroke_linejoin="round")
    inner = [(19, at.rear + 3), (109, at.rear + 3), (117, 118.5), (11, 118.5)]
    trim = lit(colour.towards("#fff4d8", 0.6), at.background)
    canvas.polygon(inner, "none", stroke=trim, stroke_width=1.7, stroke_linejoin="round")


def _rug(canvas: Canvas, at: Setting, rng: Random) -> None:
    """Paint a round rug with rings and a fringe, in perspective."""
    _under(canvas, at, rng)
    colour = at.colour or Colour.named("blue")
    height = (125 - at.rear) / 2
    centre = (64.0, at.rear + height)
    fringe = lit(colour.towards("#fff4d8", 0.75), at.background)
    canvas.ellipse((65, centre[1] + 1.5), 62, height, "#1a1220", opacity=0.3)
    canvas.ellipse(centre, 61, height, fringe)
    for i in range(44):
        angle = i * pi / 22
        x, y = sin(angle), sin(angle + pi / 2)
        tip = (64 + 61 * x, centre[1] + height * y)
        tuft = f"M {64 + 57 * x} {centre[1] + (height - 2) * y} L {tip[0]} {tip[1]}"
        canvas.stroke(tuft, lit(colour.dark, at.background), 0.6, opacity=0.6)
    base, dark = lit(colour.base, at.background), lit(colour.dark, at.background)
    light = lit(colour.light, at.background)
    for part, shade in (
        (0.94, dark),
        (0.9, base),
        (0.68, light),
        (0.62, base),
        (0.36, dark),
        (0.32, base),
    ):
        canvas.ellipse(centre, 61 * part, height * part, shade)


PLACES: dict[str, Place] = {
    place.name: place
    for place in (
        Place(name="mat", paint=_mat, coloured=True, indoors=True),
        Place(name="rug", paint=_rug, coloured=True, indoors=True),
        Place(name="floor", paint=_floor, indoors=True),
        Place(name="grass", paint=_grass),
        Place(name="sand", paint=_sand),
        Place(name="snow", paint=_snow),
        Place(name="road", paint=_road),
        Place(name="water", paint=_water),
    )
}
