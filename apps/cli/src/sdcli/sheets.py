"""Pictures side by side, with what they differ in written beside them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_GAP = 4
_INK, _PAPER = (20, 20, 20), (255, 255, 255)
_MIN_FONT, _MAX_FONT = 10, 32


def sheet(
    rows: "Sequence[Sequence[Image.Image]]", columns: Sequence[str], labels: Sequence[str]
) -> "Image.Image":
    """Lay pictures out in rows, all of one size, under `columns` and beside `labels`.

    What is too long for its place is broken into lines.
    """
    from PIL import Image, ImageDraw, ImageFont

    width = max(one.width for row in rows for one in row)
    height = max(one.height for row in rows for one in row)
    font = ImageFont.load_default(size=min(max(width // 12, _MIN_FONT), _MAX_FONT))
    scratch = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    heads = [_broken(scratch, text, font, width) for text in columns]
    sides = [_broken(scratch, text, font, width) for text in labels]
    top = max((_extent(scratch, text, font)[1] for text in heads), default=0) + 2 * _GAP
    left = max((_extent(scratch, text, font)[0] for text in sides), default=0) + 2 * _GAP
    size = (left + len(rows[0]) * (width + _GAP), top + len(rows) * (height + _GAP))
    whole = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(whole)
    for column, text in enumerate(heads):
        place = (left + column * (width + _GAP) + width // 2, top - _GAP)
        pen.multiline_text(place, text, _INK, font, anchor="md", align="center")
    for row, (pictures, text) in enumerate(zip(rows, sides, strict=True)):
        below = top + row * (height + _GAP)
        place = (left - _GAP, below + height // 2)
        pen.multiline_text(place, text, _INK, font, anchor="rm", align="right")
        for column, picture in enumerate(pictures):
            whole.paste(picture, (left + column * (width + _GAP), below))
    return whole


def stacked(parts: "Sequence[Image.Image]") -> "Image.Image":
    """Set sheets below one another."""
    from PIL import Image

    size = (max(one.width for one in parts), sum(one.height for one in parts))
    whole = Image.new("RGB", size, _PAPER)
    below = 0
    for part in parts:
        whole.paste(part, (0, below))
        below += part.height
    return whole


def _broken(pen: "ImageDraw.ImageDraw", text: str, font: "Font", width: int) -> str:
    """Return a text with its words on as many lines as the width asks for."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and pen.textlength(longer, font=font) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def _extent(pen: "ImageDraw.ImageDraw", text: str, font: "Font") -> tuple[int, int]:
    left, top, right, bottom = pen.multiline_textbbox((0, 0), text, font=font)
    return round(right - left), round(bottom - top)
