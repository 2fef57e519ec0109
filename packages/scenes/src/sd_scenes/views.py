"""Views of one particular dog or cat: scenes that show it alone, here and there."""

from dataclasses import replace
from random import Random

from sd_scenes.captions import plain_caption
from sd_scenes.composition import PORTRAIT_PLACES, compose_portrait
from sd_scenes.errors import SceneError
from sd_scenes.scene import Item, Scene
from sd_scenes.subject import Subject
from sd_scenes.subjects import SUBJECTS
from sd_scenes.things import THINGS

_SMALLEST = 0.74


def subjects() -> tuple[str, ...]:
    """Return the names of the particular things that `draw_subject` knows."""
    return tuple(SUBJECTS)


def make_view(name: str, index: int, *, seed: int = 0) -> tuple[Scene, str]:
    """Make up view ``index`` of the subject ``name`` in the set ``seed``, with its caption.

    Its poses take turns, and so do the places: few views show much of it. Raises
    :class:`SceneError` for a ``name`` that is not among `subjects`.
    """
    if name not in SUBJECTS:
        raise SceneError(f"there is no subject {name!r}; choose from {', '.join(SUBJECTS)}")
    subject = SUBJECTS[name]
    rng = Random(f"subject/{name}/{seed}/{index}")
    scene = compose_portrait(subject.thing, _place(name, index, seed), rng)
    items = tuple(_portrayed(subject, item, index, rng) for item in scene.items)
    scene = replace(scene, items=items)
    return scene, plain_caption(scene)


def _place(name: str, index: int, seed: int) -> str:
    turn, step = divmod(index, len(PORTRAIT_PLACES))
    order = list(PORTRAIT_PLACES)
    Random(f"places/{name}/{seed}/{turn}").shuffle(order)
    return order[step]


def _portrayed(subject: Subject, item: Item, index: int, rng: Random) -> Item:
    """Put ``subject`` in the place of ``item``, in its next pose, as near or a little farther."""
    num_poses = len(subject.poses)
    part = rng.uniform(_SMALLEST, 1.0)
    spare = (1 - part) * item.size * THINGS[item.thing].width / 200
    return replace(
        item,
        subject=subject.name,
        flip=item.flip and not subject.lopsided,
        pose=item.pose - item.pose % num_poses + index % num_poses,
        size=round(part * item.size, 2),
        x=round(item.x + rng.uniform(-spare, spare), 2),
    )
