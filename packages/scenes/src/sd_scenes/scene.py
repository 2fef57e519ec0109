"""What a scene holds."""

from dataclasses import dataclass

from sd_scenes.marks import Marks


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """``count`` equal things; ``colour`` is what captions call it, None when they name none.

    ``features`` are what captions say that they have, such as "brown patches".
    """

    thing: str
    count: int = 1
    colour: str | None = None
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One drawn thing: its foot at (``x``, ``y``) of a 128 unit picture, mirrored by ``flip``.

    ``size`` is the longer side, ``pose`` the seed of its pose, ``floats`` puts it into the water
    and ``hovers`` leaves out its shadow. An item with a ``rim`` paints the part below it once more,
    over the thing that sits in it. ``subject`` names the one particular thing that it is, whose
    ``colour`` then says nothing. ``marks`` are what a dog or a cat has besides its coat.
    """

    thing: str
    colour: str
    x: float
    y: float
    size: float
    flip: bool = False
    pose: int = 0
    floats: bool = False
    hovers: bool = False
    rim: float | None = None
    subject: str | None = None
    marks: Marks | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A picture in words and numbers.

    ``groups`` (one or two) stand in ``relation``; ``items`` are drawn in their order. ``place`` is
    None for the open sky. Captions may name the place, its colour and the background where
    ``names_place``, ``names_place_colour`` and ``names_background`` say so, and must name the
    background where they do.
    """

    groups: tuple[Group, ...]
    items: tuple[Item, ...]
    relation: str | None
    place: str | None
    place_colour: str | None
    background: str
    names_place: bool
    names_place_colour: bool
    names_background: bool
    horizon: float
    rear: float
    look: int
