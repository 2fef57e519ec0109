"""Say what a scene shows, in varied words."""

from random import Random
from typing import TYPE_CHECKING, TypeVar

from sd_scenes.backgrounds import CLOUDY, DAY, INDOORS, NIGHT, SUNSET
from sd_scenes.colours import NAMED
from sd_scenes.places import PLACES
from sd_scenes.relations import ABOVE, AND, FRONT, IN, LEFT, NEXT, ON, RIGHT, UNDER
from sd_scenes.scene import Group, Scene
from sd_scenes.things import THINGS

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem

_T = TypeVar("_T")

NUMBERS = {1: "one", 2: "two", 3: "three"}

_MARK_WORDS = "patches scarf one ear up"
_PREFIXES = ("a drawing of ", "a picture of ", "an illustration of ")
_WORDS = {
    NEXT: ("next to", "next to", "next to", "beside", "near"),
    AND: ("and",),
    LEFT: ("to the left of", "left of", "on the left of"),
    RIGHT: ("to the right of", "right of", "on the right of"),
    ON: ("on", "on", "on top of"),
    IN: ("in",),
    UNDER: ("under", "under", "under", "below", "beneath"),
    FRONT: ("in front of",),
    ABOVE: ("above", "above", "over"),
}
# A turned-round relation says the second group first.
_TURNED = {
    UNDER: ("above", "over"),
    FRONT: ("behind",),
    ABOVE: ("under", "below"),
    LEFT: ("to the right of", "right of"),
    RIGHT: ("to the left of", "left of"),
}
_PLACES = {
    "grass": ("on grass", "on the grass", "on grass", "on green grass", "in the grass"),
    "sand": ("on sand", "on the sand", "on sand", "on yellow sand", "on the beach"),
    "snow": ("on snow", "in the snow", "on the snow", "on white snow", "in snow"),
    "floor": ("on the floor", "on a floor", "on a wooden floor", "on the wooden floor"),
    "road": ("on a road", "on the road", "on a road", "on a grey road"),
    "water": ("on water", "on the water", "in the water", "in water", "on blue water"),
}
_OVER = {
    "grass": ("the grass", "grass"),
    "sand": ("the sand", "the beach"),
    "snow": ("the snow", "snow"),
    "water": ("the water", "water"),
}
_SUFFIXES = {
    DAY: (", blue sky", " under a blue sky", ", day", " on a sunny day"),
    NIGHT: (", night sky", " at night", ", night sky", ", night", " under a night sky"),
    SUNSET: (" at sunset", ", sunset", ", sunset sky", " at sunset"),
    CLOUDY: (" under a cloudy sky", ", cloudy sky", " on a cloudy day", ", cloudy sky"),
    INDOORS: (" indoors", ", indoors", " in a room"),
}
_AIRS = {
    DAY: ("in the sky", "in a blue sky", "in the blue sky"),
    NIGHT: ("in the night sky", "in a night sky", "in the sky at night"),
    SUNSET: ("in the sky at sunset", "in a sunset sky"),
    CLOUDY: ("in a cloudy sky", "in the cloudy sky"),
}


def caption(scene: Scene, rng: Random) -> str:
    """Return one of the many captions of ``scene``: lower case, commas only."""
    if scene.place is None:
        return _prefixed(f"{_group(scene.groups[0], rng)} {_air(scene, rng)}", rng)
    if len(scene.groups) == 1 and scene.relation == ABOVE:
        over = f"{rng.choice(_WORDS[ABOVE])} {rng.choice(_OVER[scene.place])}"
        text = f"{_group(scene.groups[0], rng)} {over}"
    elif _lies_on_cloth(scene) and rng.random() < 0.06:
        text = f"{_cloth(scene, rng)} with {_subject(scene, rng, plain=True)} on it"
    elif scene.names_place and len(scene.groups) == 1 and rng.random() < 0.05:
        text = _terse(scene)
    else:
        text = _subject(scene, rng)
        if scene.names_place:
            text += f" {_place(scene, rng)}"
    if scene.names_background:
        text += rng.choice(_SUFFIXES[scene.background])
    return _prefixed(text, rng)


def plain_caption(scene: Scene) -> str:
    """Return the plainest caption of ``scene``."""
    return caption(scene, _Plain())


class _Plain(Random):
    """Always the first of the choices, never the rare turn of phrase."""

    def choice(self, seq: "SupportsLenAndGetItem[_T]") -> _T:
        return seq[0]

    def random(self) -> float:
        return 0.999


def vocabulary() -> frozenset[str]:
    """Return every word that a caption can contain."""
    texts = ["a an the with on it", _MARK_WORDS, *_PREFIXES, *NUMBERS.values(), *NAMED, *PLACES]
    texts += [word for thing in THINGS.values() for word in (thing.name, thing.plural)]
    for table in (_WORDS, _TURNED, _PLACES, _OVER, _SUFFIXES, _AIRS):
        texts += [text for choices in table.values() for text in choices]
    return frozenset(" ".join(texts).replace(",", " ").split())


def _prefixed(text: str, rng: Random) -> str:
    return rng.choice(_PREFIXES) + text if rng.random() < 0.1 else text


def _article(noun: str, rng: Random) -> str:
    if noun.split()[-1] in ("sun", "moon") and rng.random() < 0.4:
        return f"the {noun}"
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _noun(group: Group) -> str:
    thing = THINGS[group.thing]
    name = thing.name if group.count == 1 else thing.plural
    return f"{group.colour} {name}" if group.colour else name


def _group(group: Group, rng: Random) -> str:
    noun = _noun(group)
    several = group.count > 1 or rng.random() < 0.03
    text = f"{NUMBERS[group.count]} {noun}" if several else _article(noun, rng)
    return f"{text} with {' and '.join(group.features)}" if group.features else text


def _subject(scene: Scene, rng: Random, *, plain: bool = False) -> str:
    first = _group(scene.groups[0], rng)
    if len(scene.groups) == 1:
        return first
    second = _group(scene.groups[1], rng)
    relation = scene.relation or AND
    if plain and relation == NEXT:
        relation = AND
    if relation in (NEXT, AND) and rng.random() < 0.5:
        first, second = second, first
    if relation in _TURNED and not scene.names_place and rng.random() < 0.12:
        return f"{second} {rng.choice(_TURNED[relation])} {first}"
    return f"{first} {rng.choice(_WORDS[relation])} {second}"


def _lies_on_cloth(scene: Scene) -> bool:
    return (
        scene.place is not None
        and PLACES[scene.place].coloured
        and scene.names_place
        and scene.relation in (None, NEXT, AND)
    )


def _cloth_noun(scene: Scene) -> str:
    named = scene.names_place_colour and scene.place_colour
    return f"{scene.place_colour} {scene.place}" if named else str(scene.place)


def _cloth(scene: Scene, rng: Random) -> str:
    return _article(_cloth_noun(scene), rng)


def _place(scene: Scene, rng: Random) -> str:
    assert scene.place is not None
    if not PLACES[scene.place].coloured:
        return rng.choice(_PLACES[scene.place])
    article = f"the {_cloth_noun(scene)}" if rng.random() < 0.08 else _cloth(scene, rng)
    return f"on {article}"


def _terse(scene: Scene) -> str:
    """Leave the articles out: "black cat on red mat"."""
    group = scene.groups[0]
    head = _noun(group) if group.count == 1 else f"{NUMBERS[group.count]} {_noun(group)}"
    assert scene.place is not None
    place = _cloth_noun(scene) if PLACES[scene.place].coloured else scene.place
    if group.features:
        head += f" with {' and '.join(group.features)}"
    return f"{head} on {place}"


def _air(scene: Scene, rng: Random) -> str:
    names = scene.names_background
    return rng.choice(_AIRS[scene.background]) if names else "in the sky"
