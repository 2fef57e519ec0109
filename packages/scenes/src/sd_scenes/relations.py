"""Which thing can be on, under or in front of which, and where it then is."""

from dataclasses import dataclass

ON, IN, UNDER, FRONT, ABOVE = "on", "in", "under", "in front of", "above"
NEXT, AND, LEFT, RIGHT = "next to", "and", "to the left of", "to the right of"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A spot on a thing that carries another.

    ``x`` and ``y`` are in the carrier's own units (of which its longer side has 100), ``size`` is
    the guest's longer side in the same units; what the carrier has below ``rim`` hides the guest.
    """

    x: float
    y: float
    size: float
    guests: tuple[str, ...]
    relation: str = ON
    rim: float | None = None


SMALL = ("cat", "rabbit", "bird", "frog", "duck", "turtle")
PETS = (*SMALL, "dog", "pig")
GOODS = ("ball", "apple", "cup", "hat", "book")

SEATS: dict[str, Seat] = {
    "chair": Seat(x=2, y=-40, size=48, guests=(*PETS, *GOODS, "lamp")),
    "car": Seat(x=-4, y=-50, size=50, guests=(*PETS, "ball", "hat", "chair")),
    "boat": Seat(x=0, y=-18, size=50, guests=PETS, relation=IN, rim=-27),
    "house": Seat(x=0, y=-98, size=40, guests=("bird", "cat", "frog", "balloon")),
    "mushroom": Seat(x=0, y=-98, size=44, guests=("frog", "bird", "turtle", "apple")),
    "tree": Seat(x=0, y=-52, size=38, guests=("bird", "cat"), relation=IN),
    "horse": Seat(x=-14, y=-61, size=42, guests=("bird", "cat", "frog", "rabbit")),
    "turtle": Seat(x=-7, y=-64, size=46, guests=("frog", "bird", "rabbit", "apple")),
    "sheep": Seat(x=-14, y=-76, size=42, guests=("bird", "frog", "duck")),
}

# x is how far to the side of the roof's middle the guest stands, in the roof's units.
ROOFS: dict[str, Seat] = {
    "tree": Seat(x=26, y=0, size=42, guests=(*PETS, "sheep", "horse", *GOODS, "chair", "mushroom")),
    "umbrella": Seat(x=20, y=0, size=40, guests=(*PETS, "sheep", *GOODS, "flower")),
}

BACKDROPS = ("house", "tree", "bus", "car")
HIGH = ("sun", "moon", "cloud", "star", "balloon", "bird")
