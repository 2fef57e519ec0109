"""Make up scenes: what is in them, in which colours, where and when."""

from dataclasses import dataclass, replace
from random import Random

from sd_scenes import layout
from sd_scenes.backgrounds import CLOUDY, DAY, INDOORS, NIGHT, SUNSET
from sd_scenes.colours import NAMED
from sd_scenes.layout import Sprite
from sd_scenes.places import PLACES
from sd_scenes.relations import (
    ABOVE,
    AND,
    BACKDROPS,
    FRONT,
    HIGH,
    LEFT,
    NEXT,
    RIGHT,
    ROOFS,
    SEATS,
    UNDER,
)
from sd_scenes.scene import Group, Item, Scene
from sd_scenes.things import THINGS

KINDS = {
    "one": 36,
    "many": 20,
    "pair": 20,
    "carried": 6,
    "beneath": 5,
    "before": 5,
    "above": 5,
    "sky": 3,
}
GROUND = tuple(name for name, thing in THINGS.items() if thing.habitat != ("sky",))
SKY = tuple(name for name, thing in THINGS.items() if {"sky", "air"} & set(thing.habitat))

_NAMED_PLACES = {
    "mat": 24,
    "rug": 13,
    "grass": 18,
    "floor": 12,
    "snow": 12,
    "sand": 11,
    "road": 10,
    "water": 4,
}
_SILENT_PLACES = {"grass": 40, "floor": 26, "sand": 12, "snow": 10, "road": 6, "mat": 3, "rug": 3}
PORTRAIT_PLACES = tuple(place for place in _NAMED_PLACES if place != "water")
_CLOTHS = ("red", "red", "blue", "green", "brown", "orange", "purple", "yellow", "grey", "pink")
_OUTDOORS = {DAY: 58, NIGHT: 17, SUNSET: 13, CLOUDY: 12}


@dataclass(frozen=True, slots=True)
class _Where:
    place: str | None
    colour: str | None
    names_place: bool
    names_colour: bool
    background: str
    names_background: bool


def compose(rng: Random) -> Scene:
    """Make up a scene."""
    return _COMPOSERS[_pick(KINDS, rng)](rng)


def compose_portrait(thing: str, place: str, rng: Random) -> Scene:
    """Make up a scene of one ``thing`` alone at a ``place`` of `PORTRAIT_PLACES`, which is named.

    The caption is silent about the colour of the thing, and says that of a mat or a rug.
    """
    group, sprites = Group(thing=thing), [Sprite(thing, THINGS[thing].usual[0])]
    items = layout.abreast(sprites, rng)
    where = _where(rng, (thing,), places={place: 1})
    return _stage(rng, (group,), items, replace(where, names_place=True, names_colour=True))


def _pick(weights: dict[str, int], rng: Random) -> str:
    return rng.choices(tuple(weights), tuple(weights.values()))[0]


def _group(thing: str, rng: Random, count: int = 1) -> tuple[Group, list[Sprite]]:
    """Choose colours; a caption that names none has to do with the usual ones."""
    kind = THINGS[thing]
    if rng.random() < 0.58:
        usual = kind.fixed or rng.random() < 0.5
        colour = rng.choice(kind.usual if usual else tuple(NAMED))
        return Group(thing=thing, count=count, colour=colour), [Sprite(thing, colour)] * count
    mixed = count > 1 and rng.random() < 0.3
    colour = rng.choice(kind.usual)
    sprites = [Sprite(thing, rng.choice(kind.usual) if mixed else colour) for _ in range(count)]
    return Group(thing=thing, count=count), sprites


def _where(rng: Random, things: tuple[str, ...], *, places: dict[str, int] | None = None) -> _Where:
    """Choose the place and the background for ``things`` that stand on the ground."""
    named = rng.random() < 0.86
    weights = dict(places or (_NAMED_PLACES if named else _SILENT_PLACES))
    swimmers = sum("water" in THINGS[thing].habitat for thing in things)
    if swimmers and places is None:
        weights["water"] = sum(weights.values()) * (2 if swimmers == len(things) else 0)
    place = _pick(weights, rng)
    inside = PLACES[place].indoors and rng.random() < 0.84
    background = INDOORS if inside else _pick(_OUTDOORS, rng)
    if background == INDOORS:
        names_background = rng.random() < 0.08
    elif background == DAY and not PLACES[place].indoors:
        names_background = rng.random() < 0.16
    else:
        # A sky that nobody would expect has to be named.
        names_background = True
    colour, names_colour = None, False
    if PLACES[place].coloured:
        colour, names_colour = rng.choice(_CLOTHS), rng.random() < 0.6
        if names_colour and rng.random() < 0.5:
            colour = rng.choice(tuple(NAMED))
    return _Where(place, colour, named, names_colour, background, names_background)


def _stage(
    rng: Random,
    groups: tuple[Group, ...],
    items: list[Item],
    where: _Where,
    *,
    relation: str | None = None,
) -> Scene:
    """Draw the horizon behind the feet of what stands on the ground."""
    feet = [item.y for item in items if not item.hovers] or [128.0]
    on_water = where.place == "water"
    if on_water and all(group.thing == "fish" for group in groups):
        horizon = rng.uniform(16, 28)
        highest = min(item.y - item.size * THINGS[item.thing].height / 100 for item in items)
        lift = max(0.0, highest - horizon - 4) * rng.uniform(0.1, 0.6)
        items = [replace(item, y=item.y - lift) for item in items]
    elif on_water:
        high = min(46.0, min(feet) - 16)
        horizon = rng.uniform(high - 8, high)
    else:
        horizon = min(rng.uniform(60, 78), min(feet) - 14)
    if where.place is None:
        horizon = 128.0
    rear = max(horizon + 4, min(min(feet), 112.0) - rng.uniform(20, 27))
    if on_water:
        items = [item if item.hovers else _afloat(item) for item in items]
    return Scene(
        groups=groups,
        items=tuple(items),
        relation=relation,
        place=where.place,
        place_colour=where.colour,
        background=where.background,
        names_place=where.names_place,
        names_place_colour=where.names_colour,
        names_background=where.names_background,
        horizon=round(horizon, 2),
        rear=round(rear, 2),
        look=rng.randrange(1 << 30),
    )


def _afloat(item: Item) -> Item:
    return replace(item, floats=True)


def _one(rng: Random) -> Scene:
    return _several(rng, 1)


def _many(rng: Random) -> Scene:
    return _several(rng, rng.choices((2, 3), (60, 40))[0])


def _several(rng: Random, count: int) -> Scene:
    thing = rng.choice(GROUND)
    group, sprites = _group(thing, rng, count)
    if "air" in THINGS[thing].habitat and rng.random() < 0.35:
        return _hung(rng, group, sprites)
    items = layout.abreast(sprites, rng)
    return _stage(rng, (group,), items, _where(rng, (thing,)))


def _pair(rng: Random) -> Scene:
    first, second = rng.choice(GROUND), rng.choice(GROUND)
    left, left_sprites = _group(first, rng, rng.choices((1, 2), (88, 12))[0])
    right, right_sprites = _group(second, rng)
    if first == second:
        colours = rng.sample(tuple(NAMED), 2) if not THINGS[first].fixed else None
        if colours is None:
            return _pair(rng)
        left, right = (Group(thing=first, colour=colour) for colour in colours)
        left_sprites, right_sprites = ([Sprite(first, colour)] for colour in colours)
    relation = rng.choices((NEXT, AND, LEFT, RIGHT), (45, 33, 11, 11))[0]
    items = layout.abreast(left_sprites + right_sprites, rng)
    scene = _stage(rng, (left, right), items, _where(rng, (first, second)), relation=relation)
    return scene if relation in (NEXT, AND) else say_side(scene, relation)


def say_side(scene: Scene, relation: str) -> Scene:
    """Have a scene of two groups abreast say which is ``relation``, LEFT or RIGHT, of the other."""
    first, second = scene.groups
    # Staggered things of one kind stand in either order.
    across = [item.x for item in scene.items]
    first_is_left = across[0] < across[-1]
    if first_is_left != (relation == LEFT):
        first, second = second, first
    return replace(scene, groups=(first, second), relation=relation)


def name_cloth(scene: Scene, colour: str) -> Scene:
    """Give a scene's mat or rug a ``colour`` that its caption names."""
    return replace(scene, place_colour=colour, names_place=True, names_place_colour=True)


def _carried(rng: Random) -> Scene:
    carrier = rng.choice(tuple(SEATS))
    seat = SEATS[carrier]
    above, guests = _group(rng.choice(seat.guests), rng)
    below, carriers = _group(carrier, rng)
    items = layout.carried(guests[0], carriers[0], seat, rng)
    where = _where(rng, (carrier,), places=_plain_places(carrier))
    return _stage(rng, (above, below), items, _quieter(where, rng), relation=seat.relation)


def _beneath(rng: Random) -> Scene:
    roof = rng.choice(tuple(ROOFS))
    spot = ROOFS[roof]
    below, guests = _group(rng.choice(spot.guests), rng)
    above, roofs = _group(roof, rng)
    items = layout.beneath(guests[0], roofs[0], spot, rng)
    where = _quieter(_where(rng, (roof,), places=_plain_places(roof)), rng)
    return _stage(rng, (below, above), items, where, relation=UNDER)


def _before(rng: Random) -> Scene:
    backdrop = rng.choice(BACKDROPS)
    guest = rng.choice([name for name in GROUND if name not in BACKDROPS and name != "boat"])
    near, guests = _group(guest, rng)
    far, backdrops = _group(backdrop, rng)
    items = layout.before(guests[0], backdrops[0], rng)
    where = _quieter(_where(rng, (backdrop,), places=_plain_places(backdrop)), rng)
    return _stage(rng, (near, far), items, where, relation=FRONT)


def _above(rng: Random) -> Scene:
    high, low = rng.choice(HIGH), rng.choice(GROUND)
    if low == high:
        return _above(rng)
    upper, uppers = _group(high, rng)
    lower, lowers = _group(low, rng)
    items = layout.stacked(uppers[0], lowers[0], rng)
    wet = low in ("boat", "fish", "duck") and rng.random() < 0.7
    where = _quieter(_where(rng, (low,), places={"water": 1} if wet else _plain_places(low)), rng)
    return _stage(rng, (upper, lower), items, _outside(where, rng, high), relation=ABOVE)


def _sky(rng: Random) -> Scene:
    group, sprites = _group(rng.choice(SKY), rng, rng.choices((1, 2, 3), (60, 22, 18))[0])
    return _hung(rng, group, sprites)


def _hung(rng: Random, group: Group, sprites: list[Sprite]) -> Scene:
    """Hang a group in the open sky or over a strip of ground."""
    open_sky = rng.random() < 0.55
    strip = {"grass": 4, "water": 4, "sand": 2, "snow": 2}
    where = _outside(_where(rng, (group.thing,), places=strip), rng, group.thing)
    night = group.thing in ("moon", "star") and rng.random() < 0.6
    if night:
        where = replace(where, background=NIGHT, names_background=True)
    if open_sky:
        where = replace(where, place=None, colour=None)
    items = layout.aloft(sprites, rng, floor=121.0 if open_sky else 96.0)
    scene = _stage(rng, (group,), items, where, relation=ABOVE if not open_sky else None)
    return replace(scene, horizon=128.0 if open_sky else rng.uniform(99, 103))


def _outside(where: _Where, rng: Random, high: str) -> _Where:
    """Choose a sky that suits ``high`` and that it can be told from."""
    unfit = {"cloud": CLOUDY, "sun": NIGHT}.get(high, INDOORS)
    if where.background not in (INDOORS, unfit):
        return where
    background = _pick({**_OUTDOORS, unfit: 0}, rng)
    return replace(where, background=background, names_background=True)


def _quieter(where: _Where, rng: Random) -> _Where:
    """Name the place of a picture that has much to say less often, if it is a common one."""
    common = where.place in ("grass", "floor", "water")
    return replace(where, names_place=where.names_place and not (common and rng.random() < 0.6))


def _plain_places(carrier: str) -> dict[str, int]:
    """Return where big things and things that carry others stand."""
    if carrier == "boat":
        return {"water": 12, "sand": 2}
    if carrier in ("chair", "book", "umbrella"):
        return {"floor": 4, "mat": 3, "rug": 3, "grass": 4, "sand": 2, "snow": 1}
    if carrier in ("car", "bus"):
        return {"road": 6, "grass": 3, "snow": 2, "sand": 2}
    return {"grass": 8, "snow": 3, "sand": 2, "road": 1}


_COMPOSERS = {
    "one": _one,
    "many": _many,
    "pair": _pair,
    "carried": _carried,
    "beneath": _beneath,
    "before": _before,
    "above": _above,
    "sky": _sky,
}
