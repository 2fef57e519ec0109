"""Give the dogs and cats of a scene marks, and have its caption say so."""

from dataclasses import replace
from random import Random

from sd_scenes.colours import NAMED
from sd_scenes.marks import Marks
from sd_scenes.scene import Group, Item, Scene
from sd_scenes.things import THINGS

_FURS = ("brown", "black", "orange", "grey", "white")


def can_be_marked(scene: Scene) -> bool:
    """Tell whether there is a dog or a cat in ``scene``."""
    return any(_takes_marks(group) for group in scene.groups)


def mark(scene: Scene, rng: Random) -> Scene:
    """Return ``scene`` with patches, scarves or raised ears for its dogs and cats.

    The caption names whatever they have, its colour now and then not.
    """
    groups, items = [], list(scene.items)
    for group in scene.groups:
        if not _takes_marks(group):
            groups.append(group)
            continue
        mine = [place for place, item in enumerate(items) if _is_of(item, group)]
        marks = _marks(group, {items[place].colour for place in mine}, rng)
        for place in mine:
            items[place] = replace(items[place], marks=marks)
        groups.append(replace(group, features=_features(marks, rng)))
    return replace(scene, groups=tuple(groups), items=tuple(items))


def _takes_marks(group: Group) -> bool:
    return THINGS[group.thing].draw_marked is not None


def _is_of(item: Item, group: Group) -> bool:
    return item.thing == group.thing and group.colour in (None, item.colour)


def _marks(group: Group, coats: set[str], rng: Random) -> Marks:
    """Choose marks that can be told from every one of the ``coats``."""
    furs = _FURS if rng.random() < 0.75 else tuple(NAMED)
    patches = rng.choice([colour for colour in furs if colour not in coats])
    scarf = rng.choice([colour for colour in NAMED if colour not in coats])
    which = rng.choices(("patches", "scarf", "both"), (3, 3, 4))[0]
    # Of several, a caption would have to say whose scarf it is.
    if group.count > 1:
        which = "patches"
    return Marks(
        patches=patches if which != "scarf" else None,
        scarf=scarf if which != "patches" else None,
        ear_up=group.count == 1 and group.thing == "dog" and rng.random() < 0.35,
    )


def _features(marks: Marks, rng: Random) -> tuple[str, ...]:
    """Say what there is; that patches or a scarf are of some colour is left out now and then."""
    features = []
    if marks.patches:
        features.append(f"{marks.patches} patches" if rng.random() < 0.85 else "patches")
    if marks.scarf:
        article = "an" if marks.scarf[0] in "aeiou" else "a"
        named = rng.random() < 0.85
        features.append(f"{article} {marks.scarf} scarf" if named else "a scarf")
    if marks.ear_up:
        features.append("one ear up")
    rng.shuffle(features)
    return tuple(features)
