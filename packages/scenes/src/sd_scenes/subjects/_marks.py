"""What makes an animal this one: the creamy coat, the tail's dark end, and the gold it wears."""

from sd_scenes.canvas import Canvas, Point
from sd_scenes.things._parts import Coat, rope

SOOT, GOLD, BRASS = "#4b3540", "#ffc42e", "#6e4410"

# An ordinary white coat is cold and its outline near black; these animals are creamy.
CREAM = Coat(
    lit="#fffdf6",
    base="#fbf0d9",
    shade="#d8bd9a",
    pale="#fffaf0",
    rim="#4a2f2c",
    line="#7a5546",
    blush="#f4a3a4",
)


def tail(canvas: Canvas, root: str, bend: Point, end: str, paint: str) -> None:
    """Draw a tail in ``paint`` along ``root`` up to the ``bend``, and on in soot along ``end``."""
    at = f"{bend[0]:.2f} {bend[1]:.2f}"
    rope(canvas, f"{root} {at} {end}", paint, CREAM.rim, 9)
    canvas.stroke(f"M {at} {end}", SOOT, 9)


def medal(canvas: Canvas, centre: Point, radius: float) -> None:
    """Draw a round gold tag or bell."""
    x, y = centre
    canvas.circle(centre, radius, GOLD, stroke=BRASS, stroke_width=1.8)
    canvas.circle((x - 0.3 * radius, y - 0.35 * radius), 0.3 * radius, "#fff3c4")
