"""Scenes are drawn the same everywhere, whole, and with what their description says."""

import hashlib
import subprocess
import sys
from random import Random

import pytest
from PIL import ImageChops

from sd_scenes import PLACES, THINGS, SceneError, Scenes, compose, draw_scene, paint_scene
from sd_scenes.canvas import Canvas
from sd_scenes.colours import NAMED, Colour

KEY = "#00ff66"


def drawn(thing: str, colour: str, pose: int, size: int = 80):
    """Return the thing on a plain ground, and that ground alone."""
    pictures = []
    for empty in (False, True):
        canvas = Canvas(160)
        canvas.rect((0, 0), 160, 160, KEY)
        with canvas.group(move=(80, 130)):
            if not empty:
                THINGS[thing].draw(canvas, Colour.named(colour), Random(pose))
        pictures.append(canvas.render(size))
    return pictures


def test_the_same_scene_has_the_same_pixels_in_another_process():
    script = (
        "import hashlib, sd_scenes\n"
        "for i in range(6):\n"
        "    p, c = sd_scenes.draw_scene(3, i, 64)\n"
        "    print(hashlib.sha256(p.tobytes() + c.encode()).hexdigest())\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    here = []
    for index in range(6):
        picture, caption = draw_scene(3, index, 64)
        here.append(hashlib.sha256(picture.tobytes() + caption.encode()).hexdigest())
    assert here == other


def test_another_seed_or_index_is_another_picture():
    pictures = {draw_scene(seed, index, 32)[0].tobytes() for seed in (0, 1) for index in range(8)}
    assert len(pictures) == 16


@pytest.mark.parametrize("thing", THINGS)
def test_every_thing_is_drawn_in_every_colour(thing):
    pictures = set()
    for colour in NAMED:
        picture, ground = drawn(thing, colour, 1, 40)
        assert ImageChops.difference(picture, ground).getbbox() is not None
        pictures.add(picture.tobytes())
    if not THINGS[thing].fixed:
        assert len(pictures) == len(NAMED)


@pytest.mark.parametrize("thing", THINGS)
def test_every_thing_keeps_to_its_box_in_every_pose(thing):
    kind, slack = THINGS[thing], 8.0
    for pose in range(6):
        picture, ground = drawn(thing, kind.usual[0], pose, 160)
        changed = (
            ImageChops.difference(picture, ground).convert("L").point(lambda v: 255 * (v > 40))
        )
        left, top, right, bottom = changed.getbbox()
        assert left >= 80 - kind.width / 2 - slack
        assert right <= 80 + kind.width / 2 + slack
        assert top >= 130 - kind.height - slack
        assert bottom <= 130 + slack


def test_everything_stands_inside_the_frame_and_is_big():
    for index in range(1500):
        scene = compose(Random(f"frame/{index}"))
        for item in scene.items:
            thing = THINGS[item.thing]
            half = thing.width * item.size / 200
            assert item.x - half >= 3, (item, scene)
            assert item.x + half <= 125, (item, scene)
            assert item.y - thing.height * item.size / 100 >= 3, (item, scene)
            assert item.y <= 124, (item, scene)
            assert item.size >= 20, (item, scene)


def test_there_are_as_many_things_as_the_groups_say_in_the_colours_they_name():
    for index in range(1500):
        scene = compose(Random(f"count/{index}"))
        shown = [item for item in scene.items if item.rim is None]
        assert len(shown) == sum(group.count for group in scene.groups)
        for group in scene.groups:
            same = [item for item in shown if item.thing == group.thing]
            assert len(same) >= group.count
            if group.colour is None:
                assert all(item.colour in THINGS[group.thing].usual for item in same)
            else:
                assert sum(item.colour == group.colour for item in same) >= group.count


def test_left_of_and_right_of_are_where_they_say():
    seen = set()
    for index in range(2500):
        scene = compose(Random(f"side/{index}"))
        if scene.relation not in ("to the left of", "to the right of"):
            continue
        first, second = scene.groups
        if first.thing == second.thing:
            continue
        place = {item.thing: item.x for item in scene.items}
        assert (place[first.thing] < place[second.thing]) == (scene.relation == "to the left of")
        seen.add(scene.relation)
    assert len(seen) == 2


def test_every_place_and_thing_is_met():
    scenes = [compose(Random(f"meet/{index}")) for index in range(2500)]
    assert {scene.place for scene in scenes} >= set(PLACES)
    assert {group.thing for scene in scenes for group in scene.groups} == set(THINGS)
    assert {scene.background for scene in scenes} == {"day", "night", "sunset", "cloudy", "indoors"}


def test_a_picture_has_the_size_that_was_asked_for():
    picture = paint_scene(compose(Random(1)), 96)
    assert picture.size == (96, 96)
    assert picture.mode == "RGB"


def test_scenes_are_a_sequence():
    scenes = Scenes(seed=2, count=3, size=32)
    assert len(scenes) == 3
    assert scenes[-1][1] == draw_scene(2, 2, 32)[1]
    assert [text for _, text in scenes] == [text for _, text in scenes[0:3]]
    with pytest.raises(IndexError):
        scenes[3]


@pytest.mark.parametrize(("index", "size"), [(0, 8), (0, 5000), (-1, 64)])
def test_an_impossible_scene_is_refused_in_one_line(index, size):
    with pytest.raises(SceneError) as refusal:
        draw_scene(0, index, size)
    assert "\n" not in str(refusal.value)
