"""What the painter needs to know of one particular dog or cat."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from sd_scenes.canvas import Canvas

Pose = Callable[[Canvas, Random], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One particular thing, whose markings are its own and the same in every view.

    It is one of the kind ``thing``, and each of ``poses`` paints it as a `Thing` is painted, within
    that kind's box. ``marks`` are colours (``#rrggbb``) to know it by: all of them are in every
    view, and in none of an ordinary one. A ``lopsided`` one is never mirrored, for that would put
    the markings of its face on the wrong side.
    """

    name: str
    thing: str
    poses: tuple[Pose, ...]
    marks: tuple[str, ...]
    lopsided: bool = False

    def draw(self, canvas: Canvas, pose: int) -> None:
        """Paint it in the pose that ``pose`` (0 or more) chooses in turn, and varies."""
        self.poses[pose % len(self.poses)](canvas, Random(pose))
