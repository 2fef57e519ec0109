"""A sheet of pictures in rows, each row under its title."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from sd_checkpoint import atomic_path

_GAP = 4
_INK, _PAPER = (20, 20, 20), (255, 255, 255)
_LEAST, _MOST = 10, 28


def save_sheet(path: Path, rows: Sequence[tuple[str, Sequence[Image.Image]]], side: int) -> None:
    """Write rows of pictures of `side` pixels as PNG, each under its title."""
    font = ImageFont.load_default(size=min(max(side // 12, _LEAST), _MOST))
    head = 2 * _GAP + round(font.getbbox("Ay")[3])
    columns = max(len(pictures) for _, pictures in rows)
    size = (_GAP + columns * (side + _GAP), len(rows) * (head + side + _GAP))
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    for row, (title, pictures) in enumerate(rows):
        top = row * (head + side + _GAP)
        pen.text((_GAP, top + _GAP), title, _INK, font)
        for column, picture in enumerate(pictures):
            shown = picture if picture.size == (side, side) else picture.resize((side, side))
            sheet.paste(shown, (_GAP + column * (side + _GAP), top + head))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")
