"""What some dogs and cats have besides a coat of one colour."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Patches and a scarf, by the names of their colours, and one ear that stands up."""

    patches: str | None = None
    scarf: str | None = None
    ear_up: bool = False


PLAIN = Marks()
