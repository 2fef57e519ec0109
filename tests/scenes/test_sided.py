"""A share of the scenes of two things side by side can be made to say which is left."""

import json
from itertools import count, islice

import pytest

from sd_scenes import Scene, SceneError, draw_scene, make_scene, write_folder
from sd_scenes.relations import AND, LEFT, NEXT, RIGHT


def middle(scene: Scene, group: int) -> float:
    """Return where a group stands; of two groups of one kind, the items are in their order."""
    named = scene.groups[group]
    items = [item for item in scene.items if item.thing == named.thing]
    if scene.groups[0].thing == scene.groups[1].thing:
        items = [item for item in items if item.colour == named.colour]
    return sum(item.x for item in items) / len(items)


def abreast(seed: int, sided: float):
    for index in count():
        usual = make_scene(seed, index, two_coloured=0.6)[0]
        if usual.relation in (NEXT, AND, LEFT, RIGHT):
            yield usual, *make_scene(seed, index, two_coloured=0.6, sided=sided), index


def test_what_is_said_to_be_left_is_left():
    for _, scene, text, _ in islice(abreast(3, 1.0), 400):
        assert scene.relation in (LEFT, RIGHT)
        assert "left" in text or "right" in text
        assert (middle(scene, 0) < middle(scene, 1)) == (scene.relation == LEFT)


def test_both_sides_are_said_and_the_picture_stays():
    rows = list(islice(abreast(4, 1.0), 200))
    assert 70 < sum(scene.relation == LEFT for _, scene, _, _ in rows) < 130
    assert all(usual.items == scene.items for usual, scene, _, _ in rows)
    index = next(i for usual, _, _, i in rows if usual.relation == NEXT)
    usual, sided = (draw_scene(4, index, 32, two_coloured=0.6, sided=s) for s in (0.0, 1.0))
    assert usual[0].tobytes() == sided[0].tobytes()
    assert usual[1] != sided[1]


def test_half_a_share_says_half_of_them():
    rows = list(islice(abreast(5, 0.5), 300))
    silent = [scene for usual, scene, _, _ in rows if usual.relation in (NEXT, AND)]
    assert 80 < sum(scene.relation in (LEFT, RIGHT) for scene in silent) < 160


def test_a_folder_remembers_its_share(tmp_path):
    folder = write_folder(tmp_path / "set", 2, size=32, sided=0.5, workers=1)
    assert json.loads((folder / "scenes.json").read_text()) == {"seed": 0, "size": 32, "sided": 0.5}
    with pytest.raises(SceneError, match="choose another folder"):
        write_folder(folder, 2, size=32, workers=1)
    with pytest.raises(SceneError, match="leave one of them out"):
        write_folder(tmp_path / "rex", 1, subject="rex", sided=0.5)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused_in_one_line(tmp_path, share):
    with pytest.raises(SceneError, match=r"sided.*choose 0 to 1"):
        write_folder(tmp_path / "set", 1, sided=share)
    assert not (tmp_path / "set").exists()
