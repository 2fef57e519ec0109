"""What the composition needs to know of a thing in order to place it."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from sd_scenes.canvas import Canvas
from sd_scenes.colours import Colour
from sd_scenes.marks import Marks

Habitat = Literal["ground", "water", "air", "sky"]
Draw = Callable[[Canvas, Colour, Random], None]
DrawMarked = Callable[[Canvas, Colour, Random, Marks], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A drawable thing.

    ``draw(canvas, colour, rng)`` paints it about the origin: it stands on y = 0 and reaches up to
    about y = -``height``, and spans x in about [-``width`` / 2, ``width`` / 2]; the longer of the
    two is 100 units. It looks to the right; the composition mirrors it. ``rng`` varies the pose.
    It draws no shadow on the ground.

    ``scale`` is its size in a scene relative to a cat's 1.0. ``usual`` are the colours that it has
    when a caption names none; it can be drawn in every other colour as well unless ``fixed``. What
    can have marks has ``draw_marked``, which without any draws the same.
    """

    name: str
    plural: str
    draw: Draw
    usual: tuple[str, ...]
    width: float = 100.0
    height: float = 100.0
    scale: float = 1.0
    habitat: tuple[Habitat, ...] = ("ground",)
    fixed: bool = False
    draw_marked: DrawMarked | None = None
