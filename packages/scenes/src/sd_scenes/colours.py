"""The colours that things can have, and the shades that make them round."""

from dataclasses import dataclass

NAMED = {
    "red": "#d8342f",
    "orange": "#f08a24",
    "yellow": "#f6cf2e",
    "green": "#4aa648",
    "blue": "#3a78d6",
    "purple": "#8a4fc0",
    "pink": "#f08fb4",
    "brown": "#8b5a33",
    "black": "#33333b",
    "white": "#f4f2ec",
    "grey": "#8f969e",
}


@dataclass(frozen=True, slots=True)
class Colour:
    """A named colour as ``#rrggbb`` with its own light and dark shades."""

    name: str
    base: str

    @classmethod
    def named(cls, name: str) -> "Colour":
        """Return the colour that captions call ``name``; raises ``KeyError`` for an unknown one."""
        return cls(name, NAMED[name])

    @property
    def light(self) -> str:
        """The lit side."""
        return mix(self.base, "#ffffff", 0.38)

    @property
    def dark(self) -> str:
        """The side away from the light."""
        return mix(self.base, "#1d1430", 0.32)

    @property
    def deep(self) -> str:
        """Outlines and deep folds; on black still darker than the base."""
        return mix(self.base, "#160e24", 0.62)

    def towards(self, other: str, amount: float) -> str:
        """Return the base mixed with ``other``, ``amount`` in [0, 1]."""
        return mix(self.base, other, amount)


def mix(first: str, second: str, amount: float) -> str:
    """Return ``first`` moved by ``amount`` in [0, 1] towards ``second``, channel by channel."""
    channels = (
        round(int(first[i : i + 2], 16) * (1 - amount) + int(second[i : i + 2], 16) * amount)
        for i in (1, 3, 5)
    )
    return "#" + "".join(f"{channel:02x}" for channel in channels)
