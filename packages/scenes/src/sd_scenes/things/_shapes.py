"""What the made and growing things share: shades, outlines, wheels and panes."""

from math import cos, pi, sin

from sd_scenes.canvas import Canvas, Point
from sd_scenes.colours import Colour

RIM = 2.4
INK = "#2a2130"
CREAM = "#fbf1dc"
LEAF = Colour("leaf", "#4f9a3d")


def lit(colour: Colour) -> str:
    """Return the lit shade, held back on black so that black stays black."""
    return colour.towards("#ffffff", 0.2 if colour.name == "black" else 0.34)


def shade(colour: Colour) -> str:
    """Return the shaded side, held back on white so that white stays white."""
    return colour.towards("#6f7694", 0.34) if colour.name == "white" else colour.dark


def rim(colour: Colour) -> str:
    """Return the outline that sets the colour off from light and dark grounds alike."""
    return colour.towards("#b9c2e0", 0.5) if colour.name == "black" else colour.deep


def accent(colour: Colour) -> str:
    """Return the pale second colour of patterns upon the first; muted blue upon white."""
    return "#9db4d6" if colour.name == "white" else colour.towards("#fffaf0", 0.85)


def ball_paint(canvas: Canvas, colour: Colour, centre: Point, radius: float) -> str:
    """Return a paint for a round body at ``centre``, lit from the upper left."""
    lamp = (centre[0] - 0.4 * radius, centre[1] - 0.48 * radius)
    stops = [(0.0, lit(colour)), (0.45, colour.base), (0.62, colour.base), (1.0, shade(colour))]
    return canvas.radial(lamp, 1.5 * radius, stops)


def sheet_paint(canvas: Canvas, colour: Colour, start: Point, end: Point) -> str:
    """Return a paint for a flat or rolled body, lit at ``start`` and shaded at ``end``."""
    stops = [(0.0, lit(colour)), (0.35, colour.base), (0.65, colour.base), (1.0, shade(colour))]
    return canvas.linear(start, end, stops)


def shape(canvas: Canvas, d: str, paint: str, outline: str, width: float = RIM) -> None:
    """Draw path data ``d`` filled with ``paint`` and outlined."""
    canvas.path(d, paint, stroke=outline, stroke_width=width, stroke_linejoin="round")


def rope(canvas: Canvas, d: str, paint: str, outline: str, width: float) -> None:
    """Draw a round bar ``width`` thick along ``d``, outlined."""
    canvas.stroke(d, outline, width + 1.7 * RIM)
    canvas.stroke(d, paint, width)


def gleam(canvas: Canvas, centre: Point, size: float, angle: float = -35.0) -> None:
    """Draw the soft mark that a window leaves on a shiny body."""
    canvas.ellipse(centre, size, 0.5 * size, "#ffffff", angle=angle, opacity=0.5)


def wheel(canvas: Canvas, x: float, radius: float) -> None:
    """Draw a wheel that stands on y = 0 at ``x``."""
    centre = (x, -radius)
    canvas.circle(centre, radius - 0.6, "#2b2a33", stroke="#62616e", stroke_width=1.2)
    canvas.circle(centre, 0.56 * radius, "#cfd4dc")
    canvas.circle(centre, 0.24 * radius, "#737986")


def glass(canvas: Canvas, top: float, bottom: float) -> str:
    """Return a paint for window glass between two heights."""
    return canvas.linear((0, top), (0, bottom), [(0.0, "#eaf7ff"), (1.0, "#8fc0e0")])


def star_points(centre: Point, radius: float, num_points: int = 5) -> list[Point]:
    """Return the corners of a star with one point upwards."""
    corners = []
    for i in range(2 * num_points):
        reach = radius if i % 2 == 0 else 0.46 * radius
        turn = pi * i / num_points
        corners.append((centre[0] + reach * sin(turn), centre[1] - reach * cos(turn)))
    return corners


def heart(centre: Point, size: float) -> str:
    """Return path data of a heart about ``size`` wide."""
    x, y = centre
    s = size / 2
    return (
        f"M {x:.2f} {y + s:.2f} C {x - 1.7 * s:.2f} {y - 0.1 * s:.2f} {x - 0.8 * s:.2f} "
        f"{y - 1.3 * s:.2f} {x:.2f} {y - 0.4 * s:.2f} C {x + 0.8 * s:.2f} {y - 1.3 * s:.2f} "
        f"{x + 1.7 * s:.2f} {y - 0.1 * s:.2f} {x:.2f} {y + s:.2f} Z"
    )
