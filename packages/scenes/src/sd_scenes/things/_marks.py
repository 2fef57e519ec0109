"""How patches in a fur and a scarf about a neck are painted."""

from collections.abc import Sequence

from sd_scenes.canvas import Canvas, Point
from sd_scenes.colours import Colour
from sd_scenes.things._parts import Coat, solid


def fur(colour: str) -> Coat:
    """Return the coat of a patch of ``colour``, a ``#rrggbb`` that has no name."""
    return Coat.of(Colour("patch", colour))


def patched(canvas: Canvas, within: Sequence[str], patches: Sequence[tuple[str, str]]) -> None:
    """Draw (path data, paint) ``patches``, as far as they lie on the shapes ``within``."""
    with canvas.clip(" ".join(within)):
        for d, paint in patches:
            canvas.path(d, paint)


def kerchief(canvas: Canvas, knot: Point, cloth: Coat, fold: str) -> None:
    """Draw a band of the paint ``fold`` about a neck, and a corner of ``cloth`` on the chest."""
    with canvas.group(move=knot):
        band = "M -16 -1 Q 2 12 24 4 L 24 -6 Q 4 4 -12 -10 Z"
        corner = "M -12 3 Q 4 12 24 5 Q 22 22 10 33 Q -6 22 -12 3 Z"
        solid(canvas, [(corner, cloth.base), (band, fold)], cloth.rim, 3.4)
        canvas.stroke("M -12 3 Q 4 11 24 4.5", cloth.shade, 1.8)


def scarf(canvas: Canvas, knot: Point, colour: str) -> None:
    """Draw a scarf that captions call ``colour``."""
    named = Colour.named(colour)
    kerchief(canvas, knot, Coat.of(named), named.towards("#ffffff", 0.2))
