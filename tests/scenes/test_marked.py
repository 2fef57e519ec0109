"""A share of the scenes can be made to show dogs and cats with patches, scarves or an ear up."""

import json
from dataclasses import replace
from random import Random

import pytest

from sd_scenes import THINGS, SceneError, make_scene, paint_scene, vocabulary, write_folder
from sd_scenes.canvas import Canvas
from sd_scenes.colours import NAMED, Colour
from sd_scenes.marks import PLAIN, Marks

KINDS = [name for name, thing in THINGS.items() if thing.draw_marked is not None]
MARKED = [make_scene(6, index, two_coloured=0.5, sided=0.5, marked=1.0) for index in range(300)]


def drawn(thing: str, marks: Marks, pose: int = 3, colour: str = "grey") -> bytes:
    canvas = Canvas(160)
    with canvas.group(move=(80, 130)):
        THINGS[thing].draw_marked(canvas, Colour.named(colour), Random(pose), marks)
    return canvas.render(160).tobytes()


def test_dogs_and_cats_can_be_marked():
    assert sorted(KINDS) == ["cat", "dog"]


@pytest.mark.parametrize("thing", KINDS)
def test_one_without_marks_is_drawn_as_ever(thing):
    for pose in range(8):
        canvas = Canvas(160)
        with canvas.group(move=(80, 130)):
            THINGS[thing].draw(canvas, Colour.named("grey"), Random(pose))
        assert canvas.render(160).tobytes() == drawn(thing, PLAIN, pose)


@pytest.mark.parametrize("thing", KINDS)
def test_every_mark_and_colour_shows(thing):
    looks = [drawn(thing, PLAIN)]
    looks += [drawn(thing, Marks(patches=name)) for name in NAMED if name != "grey"]
    looks += [drawn(thing, Marks(scarf=name)) for name in NAMED]
    if thing == "dog":
        looks.append(drawn(thing, Marks(ear_up=True)))
    assert len(set(looks)) == len(looks)


def test_every_scene_has_a_marked_one_and_says_what_it_has():
    for scene, text in MARKED:
        marked = [item for item in scene.items if item.marks is not None]
        assert marked
        assert all(item.thing in KINDS for item in marked)
        for item in marked:
            assert ("patches" in text) >= (item.marks.patches is not None)
            assert ("scarf" in text) >= (item.marks.scarf is not None)
            assert ("one ear up" in text) >= item.marks.ear_up
            assert item.colour not in (item.marks.patches, item.marks.scarf)
        assert set(text.replace(",", " ").split()) <= vocabulary()


def test_a_named_colour_is_that_of_the_mark():
    for scene, _ in MARKED:
        for group in scene.groups:
            marks = next((item.marks for item in scene.items if item.thing == group.thing), None)
            if len({one.thing for one in scene.groups}) < len(scene.groups) or marks is None:
                continue
            for feature in group.features:
                *colour, what = feature.removeprefix("an ").removeprefix("a ").split()
                if colour and what in ("patches", "scarf"):
                    assert colour == [getattr(marks, what)]


def test_marks_are_painted():
    scene = next(scene for scene, _ in MARKED if scene.items[0].marks is not None)
    bare = replace(scene, items=tuple(replace(item, marks=None) for item in scene.items))
    assert paint_scene(scene, 48).tobytes() != paint_scene(bare, 48).tobytes()


def test_a_share_leaves_the_other_scenes_as_they_were():
    usual = [make_scene(7, index, two_coloured=0.6, sided=0.6) for index in range(200)]
    some = [make_scene(7, index, two_coloured=0.6, sided=0.6, marked=0.25) for index in range(200)]
    changed = [index for index in range(200) if usual[index] != some[index]]
    assert 30 < len(changed) < 70
    assert all(any(item.marks for item in some[index][0].items) for index in changed)


def test_a_folder_remembers_its_share(tmp_path):
    folder = write_folder(tmp_path / "set", 2, size=32, marked=0.5, workers=1)
    found = json.loads((folder / "scenes.json").read_text())
    assert found == {"seed": 0, "size": 32, "marked": 0.5}
    with pytest.raises(SceneError, match="choose another folder"):
        write_folder(folder, 2, size=32, workers=1)
    for other in ({"subject": "rex"}, {"labelled": True}):
        with pytest.raises(SceneError, match="leave"):
            write_folder(tmp_path / "other", 1, marked=0.5, **other)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused_in_one_line(tmp_path, share):
    with pytest.raises(SceneError, match=r"marked.*choose 0 to 1"):
        write_folder(tmp_path / "set", 1, marked=share)
    assert not (tmp_path / "set").exists()
