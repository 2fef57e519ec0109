"""A small SVG writer: shapes, shading and nested transforms, rendered with antialiasing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from xml.sax.saxutils import quoteattr

from PIL import Image

Stops = Sequence[tuple[float, str]]
Point = tuple[float, float]


class Canvas:
    """Collect SVG elements in drawing order on a square of ``extent`` user units.

    x grows to the right, y grows downwards, angles are degrees clockwise.
    """

    def __init__(self, extent: float = 128.0) -> None:
        self.extent = extent
        self._defs: list[str] = []
        self._body: list[str] = []

    def linear(self, start: Point, end: Point, stops: Stops) -> str:
        """Return a paint that runs from ``start`` to ``end`` in the current units.

        ``stops`` are (offset in [0, 1], ``#rrggbb``) pairs.
        """
        ends = f'x1="{_n(start[0])}" y1="{_n(start[1])}" x2="{_n(end[0])}" y2="{_n(end[1])}"'
        return self._gradient("linearGradient", ends, stops)

    def radial(self, centre: Point, radius: float, stops: Stops) -> str:
        """Return a paint that runs from ``centre`` outwards to ``radius`` in the current units."""
        circle = f'cx="{_n(centre[0])}" cy="{_n(centre[1])}" r="{_n(radius)}"'
        return self._gradient("radialGradient", circle, stops)

    def path(self, d: str, fill: str = "none", **style: str | float) -> None:
        """Draw SVG path data; ``style`` as in :meth:`ellipse`."""
        self._add("path", fill, style, d=d)

    def ellipse(
        self,
        centre: Point,
        radius_x: float,
        radius_y: float,
        fill: str,
        *,
        angle: float = 0.0,
        **style: str | float,
    ) -> None:
        """Draw an ellipse turned by ``angle`` degrees.

        ``style`` takes SVG presentation attributes with ``_`` for ``-``: ``stroke``,
        ``stroke_width``, ``stroke_linecap``, ``opacity``, ...
        """
        if angle:
            style = {**style, "transform": f"rotate({_n(angle)} {_n(centre[0])} {_n(centre[1])})"}
        self._add("ellipse", fill, style, cx=centre[0], cy=centre[1], rx=radius_x, ry=radius_y)

    def circle(self, centre: Point, radius: float, fill: str, **style: str | float) -> None:
        """Draw a circle."""
        self._add("circle", fill, style, cx=centre[0], cy=centre[1], r=radius)

    def rect(
        self,
        corner: Point,
        width: float,
        height: float,
        fill: str,
        *,
        radius: float = 0.0,
        **style: str | float,
    ) -> None:
        """Draw a rectangle from its top left ``corner``, its own corners rounded by ``radius``."""
        x, y = corner
        self._add("rect", fill, style, x=x, y=y, width=width, height=height, rx=radius)

    def polygon(self, points: Sequence[Point], fill: str, **style: str | float) -> None:
        """Draw a closed polygon."""
        self._add("polygon", fill, style, points=" ".join(f"{_n(x)},{_n(y)}" for x, y in points))

    def stroke(self, d: str, colour: str, width: float, **style: str | float) -> None:
        """Draw path data as a line with round ends."""
        line: dict[str, str | float] = {
            "stroke": colour,
            "stroke_width": width,
            "stroke_linecap": "round",
        }
        self.path(d, "none", **{**line, "stroke_linejoin": "round", **style})

    def soft_shadow(
        self, centre: Point, radius_x: float, radius_y: float, strength: float = 0.35
    ) -> None:
        """Draw a shadow on the ground that fades out towards its rim."""
        identity = self._name()
        self._defs.append(
            f'<radialGradient id="{identity}"><stop offset="0" stop-color="#120c20" '
            f'stop-opacity="{_n(strength)}"/><stop offset="0.55" stop-color="#120c20" '
            f'stop-opacity="{_n(strength * 0.75)}"/><stop offset="1" stop-color="#120c20" '
            'stop-opacity="0"/></radialGradient>'
        )
        self.ellipse(centre, radius_x, radius_y, f"url(#{identity})")

    def soft_glow(self, centre: Point, radius: float, colour: str, strength: float = 0.6) -> None:
        """Draw light of ``colour`` that fades out towards ``radius``."""
        identity = self._name()
        self._defs.append(
            f'<radialGradient id="{identity}"><stop offset="0" stop-color="{colour}" '
            f'stop-opacity="{_n(strength)}"/><stop offset="1" stop-color="{colour}" '
            'stop-opacity="0"/></radialGradient>'
        )
        self.circle(centre, radius, f"url(#{identity})")

    @contextmanager
    def group(
        self,
        *,
        move: Point = (0.0, 0.0),
        turn: float = 0.0,
        scale: float | Point = 1.0,
        opacity: float = 1.0,
    ) -> Iterator[None]:
        """Draw everything inside moved, turned by ``turn`` degrees and scaled about its origin.

        A negative x scale mirrors.
        """
        sx, sy = scale if isinstance(scale, tuple) else (scale, scale)
        transform = f"translate({_n(move[0])} {_n(move[1])})"
        if turn:
            transform += f" rotate({_n(turn)})"
        if (sx, sy) != (1.0, 1.0):
            transform += f" scale({_n(sx)} {_n(sy)})"
        fade = f' opacity="{_n(opacity)}"' if opacity < 1 else ""
        self._body.append(f'<g transform="{transform}"{fade}>')
        yield
        self._body.append("</g>")

    @contextmanager
    def clip(self, d: str) -> Iterator[None]:
        """Keep only what lies inside the path data ``d`` of everything drawn inside."""
        identity = self._name()
        self._defs.append(f'<clipPath id="{identity}"><path d={quoteattr(d)}/></clipPath>')
        self._body.append(f'<g clip-path="url(#{identity})">')
        yield
        self._body.append("</g>")

    def svg(self) -> str:
        """Return the whole drawing as an SVG document."""
        e = _n(self.extent)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {e} {e}">'
            f"<defs>{''.join(self._defs)}</defs>{''.join(self._body)}</svg>"
        )

    def render(self, size: int) -> Image.Image:
        """Return the drawing as an RGB picture of ``size`` x ``size`` pixels."""
        import resvg_py

        png = resvg_py.svg_to_bytes(
            svg_string=self.svg(), width=size, height=size, skip_system_fonts=True
        )
        return Image.open(BytesIO(bytes(png))).convert("RGB")

    def _gradient(self, tag: str, geometry: str, stops: Stops) -> str:
        identity = self._name()
        marks = "".join(f'<stop offset="{_n(o)}" stop-color="{c}"/>' for o, c in stops)
        self._defs.append(
            f'<{tag} id="{identity}" gradientUnits="userSpaceOnUse" {geometry}>{marks}</{tag}>'
        )
        return f"url(#{identity})"

    def _name(self) -> str:
        return f"d{len(self._defs)}"

    def _add(
        self, tag: str, fill: str, style: dict[str, str | float], **geometry: str | float
    ) -> None:
        attributes = {**geometry, "fill": fill, **style}
        text = " ".join(f"{k.replace('_', '-')}={quoteattr(_n(v))}" for k, v in attributes.items())
        self._body.append(f"<{tag} {text}/>")


def _n(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
