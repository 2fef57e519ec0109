"""Where the things of a scene go: as big as the picture allows, whole, and apart."""

from dataclasses import dataclass, replace
from random import Random

from sd_scenes.relations import Seat
from sd_scenes.scene import Item
from sd_scenes.things import THINGS

EXTENT = 128.0
MARGIN = 5.0
_LONGEST = {1: 94.0, 2: 74.0, 3: 60.0}


@dataclass(frozen=True, slots=True)
class Sprite:
    """A thing that has its colour, not yet its place."""

    thing: str
    colour: str

    @property
    def box(self) -> tuple[float, float]:
        """Width and height of what a size of 1 takes up, with some air for tails and ears."""
        thing = THINGS[self.thing]
        return (thing.width + 4) / 100, (thing.height + 1) / 100


def abreast(sprites: list[Sprite], rng: Random, *, foot: float = 116.0) -> list[Item]:
    """Stand one to three things on the ground, one beside the other or staggered in depth."""
    same = len({sprite.thing for sprite in sprites}) == 1
    width, height = sprites[0].box
    if same and len(sprites) == 3 and width > 0.72:
        return _pyramid(sprites, rng, foot)
    if same and len(sprites) == 2 and height < 0.66 * width:
        return _staggered(sprites, rng, foot)
    return _row(sprites, rng, foot)


def _relative(sprites: list[Sprite]) -> list[float]:
    sizes = [max(0.45, min(2.2, THINGS[sprite.thing].scale)) ** 0.5 for sprite in sprites]
    return [max(size / max(sizes), 0.66) for size in sizes]


def _row(sprites: list[Sprite], rng: Random, foot: float) -> list[Item]:
    relative = _relative(sprites)
    widths = [sprite.box[0] * part for sprite, part in zip(sprites, relative, strict=True)]
    tallest = max(sprite.box[1] * part for sprite, part in zip(sprites, relative, strict=True))
    gap = 6.0
    room = EXTENT - 2 * MARGIN - gap * (len(sprites) - 1)
    limit = _LONGEST[len(sprites)]
    if len(sprites) == 1:
        limit *= min(1.0, max(0.78, THINGS[sprites[0].thing].scale ** 0.3))
    foot -= rng.uniform(0, 6)
    size = min(room / sum(widths), (foot - MARGIN) / tallest, limit) * rng.uniform(0.88, 1.0)
    spare = room - size * sum(widths)
    shares = sorted(rng.uniform(0.12, 0.88) for _ in sprites)
    items = []
    x = MARGIN
    for index, sprite in enumerate(sprites):
        width = widths[index] * size
        left = x + spare * shares[index]
        lower = rng.uniform(0, 4) if len(sprites) > 1 else 0.0
        items.append(_item(sprite, rng, left + width / 2, foot + lower, size * relative[index]))
        x += width + gap
    return items


def _pyramid(sprites: list[Sprite], rng: Random, foot: float) -> list[Item]:
    width, height = sprites[0].box
    foot += 3
    size = min((EXTENT - 2 * MARGIN - 3) / (2 * width), (foot - MARGIN) / (1.8 * height), 62.0)
    size *= rng.uniform(0.93, 1.0)
    half, rise = width * size / 2, 0.8 * height * size
    edge = MARGIN + half + rng.uniform(0, max(0.0, 59 - MARGIN - 2 * half))
    middle = 64 + rng.uniform(-5, 5)
    return [
        _item(sprites[0], rng, middle, foot - rise, size * 0.96),
        _item(sprites[1], rng, edge, foot - rng.uniform(0, 2), size),
        _item(sprites[2], rng, EXTENT - edge, foot - rng.uniform(0, 2), size),
    ]


def _staggered(sprites: list[Sprite], rng: Random, foot: float) -> list[Item]:
    width, height = sprites[0].box
    size = min((EXTENT - 2 * MARGIN) / (1.4 * width), (foot - MARGIN) / (2 * height), 78.0)
    size *= rng.uniform(0.9, 1.0)
    half, rise = width * size / 2, (0.95 * height + 0.04) * size
    places = [MARGIN + half, EXTENT - MARGIN - half]
    rng.shuffle(places)
    return [
        _item(sprites[0], rng, places[0], foot - rise, size * 0.97),
        _item(sprites[1], rng, places[1], foot + 1, size),
    ]


def aloft(sprites: list[Sprite], rng: Random, *, floor: float) -> list[Item]:
    """Hang one to three things in the sky above ``floor``."""
    items = abreast(sprites, rng, foot=floor)
    highest = min(item.y - item.size * THINGS[item.thing].height / 100 for item in items)
    lift = rng.uniform(0, max(0.0, highest - MARGIN))
    return [replace(item, y=item.y - lift, hovers=True) for item in items]


def stacked(high: Sprite, low: Sprite, rng: Random) -> list[Item]:
    """Hang ``high`` in the sky right above ``low``."""
    foot = rng.uniform(114, 119)
    bulk = 60 * max(0.85, min(1.1, THINGS[low.thing].scale ** 0.3))
    size = min(bulk / max(low.box[1], 0.8), 92.0)
    x = rng.uniform(MARGIN + low.box[0] * size / 2, EXTENT - MARGIN - low.box[0] * size / 2)
    ceiling = foot - low.box[1] * size - 3
    height = min(46.0 / high.box[0], (ceiling - MARGIN) / high.box[1])
    half = high.box[0] * height / 2
    aside = min(max(x + rng.uniform(-16, 16), MARGIN + half), EXTENT - MARGIN - half)
    bottom = ceiling - rng.uniform(0, max(0.0, ceiling - MARGIN - high.box[1] * height))
    return [
        replace(_item(high, rng, aside, bottom, height), hovers=True),
        _item(low, rng, x, foot, size),
    ]


def beneath(guest: Sprite, roof: Sprite, spot: Seat, rng: Random) -> list[Item]:
    """Stand ``guest`` under ``roof``, beside its stem and a little nearer."""
    foot = 117 - rng.uniform(0, 3)
    size = min((foot - 3 - MARGIN) / roof.box[1], 114 / roof.box[0]) * rng.uniform(0.96, 1.0)
    side = rng.choice((-1, 1))
    half = roof.box[0] * size / 2
    x = min(max(64 - side * rng.uniform(0, 10), MARGIN + half), EXTENT - MARGIN - half)
    small = spot.size * size / 100
    reach = min(
        max(x + side * spot.x * size / 100, MARGIN + guest.box[0] * small / 2),
        EXTENT - MARGIN - guest.box[0] * small / 2,
    )
    return [
        _item(roof, rng, x, foot - 3, size),
        _item(guest, rng, reach, foot + 3, small),
    ]


def carried(guest: Sprite, carrier: Sprite, seat: Seat, rng: Random) -> list[Item]:
    """Put ``guest`` on the seat of ``carrier``."""
    top = max(carrier.box[1], -seat.y / 100 + guest.box[1] * seat.size / 100)
    foot = 117 - rng.uniform(0, 4)
    size = min((foot - MARGIN) / top, (EXTENT - 2 * MARGIN) / carrier.box[0], 108.0)
    half = carrier.box[0] * size / 2
    x = min(max(64 + rng.uniform(-12, 12), MARGIN + half), EXTENT - MARGIN - half)
    below = _item(carrier, rng, x, foot, size)
    across = -seat.x if below.flip else seat.x
    spot = (x + across * size / 100, foot + seat.y * size / 100)
    above = replace(_item(guest, rng, *spot, seat.size * size / 100), hovers=True)
    if seat.rim is None:
        return [below, above]
    return [below, above, replace(below, rim=seat.rim)]


def before(guest: Sprite, backdrop: Sprite, rng: Random) -> list[Item]:
    """Stand ``guest`` in front of a big ``backdrop``."""
    size = min(98 / backdrop.box[1], 112 / backdrop.box[0], 112.0) * rng.uniform(0.93, 1.0)
    foot = rng.uniform(104, 107)
    side = rng.choice((-1, 1))
    half = backdrop.box[0] * size / 2
    x = min(max(64 - side * rng.uniform(6, 18), MARGIN + half), EXTENT - MARGIN - half)
    small = 52.0 * max(0.86, min(1.0, THINGS[guest.thing].scale ** 0.3))
    reach = guest.box[0] * small / 2
    # Before a tree means before its stem; beside it would be under the tree.
    shift = rng.uniform(0, 6) if backdrop.thing == "tree" else rng.uniform(14, 30)
    aside = min(x + side * shift, EXTENT - MARGIN - reach)
    return [
        _item(backdrop, rng, x, foot, size),
        _item(guest, rng, max(aside, MARGIN + reach), rng.uniform(119, 122), small),
    ]


def _item(sprite: Sprite, rng: Random, x: float, y: float, size: float) -> Item:
    return Item(
        thing=sprite.thing,
        colour=sprite.colour,
        x=round(x, 2),
        y=round(y, 2),
        size=round(size, 2),
        flip=rng.random() < 0.5,
        pose=rng.randrange(1 << 30),
    )
