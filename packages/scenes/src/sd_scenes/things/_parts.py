"""What the animals share: coats, outlined shapes, eyes, legs and tails."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, radians, sin
from random import Random

from sd_scenes.canvas import Canvas, Point
from sd_scenes.colours import Colour, mix

INK = "#241a2c"
RIM_WIDTH = 4.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Coat:
    """The shades of an animal's fur, feathers or skin.

    ``rim`` outlines it, ``line`` draws upon it; both stay visible on every coat.
    """

    lit: str
    base: str
    shade: str
    pale: str
    rim: str
    line: str
    blush: str

    @classmethod
    def of(cls, colour: Colour) -> "Coat":
        """Return the coat of an animal whose caption says ``colour``."""
        black, white = colour.name == "black", colour.name == "white"
        return cls(
            lit=colour.towards("#ffffff", 0.2 if black else 0.34),
            base=colour.base,
            shade=colour.towards("#6f7694", 0.34) if white else colour.dark,
            pale=colour.towards("#fff4e2", 0.3 if black else 0.55),
            rim=colour.towards("#b9c2e0", 0.5) if black else colour.deep,
            line=colour.towards("#b9c2e0", 0.4) if black else colour.deep,
            blush=mix(colour.base, "#e2708c" if colour.name == "pink" else "#f2869e", 0.68),
        )

    def round(self, canvas: Canvas, centre: Point, radius: float) -> str:
        """Return a paint for a ball at ``centre``, lit from the upper left."""
        x, y = centre
        lamp = (x - 0.42 * radius, y - 0.5 * radius)
        stops = [(0.0, self.lit), (0.48, self.base), (1.0, self.shade)]
        return canvas.radial(lamp, 1.55 * radius, stops)

    def far(self) -> str:
        """Return the flat shade of limbs on the far side."""
        return mix(self.base, self.shade, 0.75)


def solid(
    canvas: Canvas, parts: Sequence[tuple[str, str]], rim: str, width: float = RIM_WIDTH
) -> None:
    """Draw (path data, paint) ``parts`` as one body with a common outline of ``rim``."""
    for d, _ in parts:
        canvas.path(d, rim, stroke=rim, stroke_width=width, stroke_linejoin="round")
    for d, paint in parts:
        canvas.path(d, paint)


def rope(canvas: Canvas, d: str, paint: str, rim: str, width: float) -> None:
    """Draw a tail or another rope along ``d`` with an outline of ``rim``."""
    canvas.stroke(d, rim, width + RIM_WIDTH)
    canvas.stroke(d, paint, width)


def oval(x: float, y: float, radius_x: float, radius_y: float, angle: float = 0.0) -> str:
    """Return path data of an ellipse about (x, y) turned by ``angle`` degrees."""
    dx, dy = radius_x * cos(radians(angle)), radius_x * sin(radians(angle))
    arc = f"A {radius_x:.2f} {radius_y:.2f} {angle:.2f} 1 1"
    left, right = f"{x - dx:.2f} {y - dy:.2f}", f"{x + dx:.2f} {y + dy:.2f}"
    return f"M {left} {arc} {right} {arc} {left} Z"


def post(x: float, top: float, half: float, toe: float = 3.0, lean: float = 0.0) -> str:
    """Return path data of a leg that stands on y = 0 at ``x`` with its toe to the right.

    ``lean`` moves its upper end at y = ``top`` sideways.
    """
    left, right, tip = x - half, x + half, x + half + toe
    return (
        f"M {left + lean:.2f} {top:.2f} L {left:.2f} -4 Q {left:.2f} 0 {left + 4:.2f} 0 "
        f"L {tip - 3:.2f} 0 Q {tip:.2f} 0 {tip:.2f} -3.5 Q {tip:.2f} -7 {right:.2f} -8 "
        f"L {right + lean:.2f} {top:.2f} Z"
    )


def blinks(rng: Random) -> bool:
    """Say whether the animal has its eyes shut."""
    return rng.random() < 0.07


def eye(
    canvas: Canvas, centre: Point, size: float, *, shut: bool = False, iris: str = "#3b2418"
) -> None:
    """Draw a big eye of radius ``size`` that looks to the right, or a closed one."""
    x, y = centre
    if shut:
        arc = f"M {x - size:.2f} {y:.2f} Q {x:.2f} {y + 1.5 * size:.2f} {x + size:.2f} {y:.2f}"
        canvas.stroke(arc, "#ffffff", 4.2, opacity=0.55)
        canvas.stroke(arc, INK, 2.4)
        return
    canvas.ellipse(centre, size, 1.12 * size, "#ffffff", stroke=INK, stroke_width=1.3)
    canvas.circle((x + 0.2 * size, y + 0.06 * size), 0.76 * size, iris)
    canvas.circle((x + 0.24 * size, y + 0.08 * size), 0.54 * size, "#140e18")
    canvas.circle((x - 0.06 * size, y - 0.32 * size), 0.27 * size, "#ffffff")


def smile(canvas: Canvas, centre: Point, width: float, colour: str) -> None:
    """Draw a small curved mouth ``width`` wide below ``centre``."""
    x, y = centre
    half = width / 2
    canvas.stroke(
        f"M {x - half:.2f} {y:.2f} Q {x:.2f} {y + 0.75 * half:.2f} {x + half:.2f} {y:.2f}",
        colour,
        1.8,
    )
