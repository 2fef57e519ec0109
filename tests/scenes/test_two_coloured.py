"""A share of the scenes can be made to hold two things of two named colours."""

import json
from random import Random

import pytest

from sd_scenes import Scene, SceneError, caption, compose, draw_scene, make_scene, write_folder


def is_two_coloured(scene: Scene) -> bool:
    colours = {group.colour for group in scene.groups}
    return len(scene.groups) == 2 and len(colours) == 2 and None not in colours


def test_with_a_share_of_one_every_scene_has_two_groups_of_different_named_colours():
    for index in range(300):
        scene, text = make_scene(5, index, two_coloured=1.0)
        assert is_two_coloured(scene)
        assert all(str(group.colour) in text for group in scene.groups)


def test_with_a_share_of_nothing_scenes_are_what_they_were():
    for index in range(100):
        scene = compose(Random(f"scene/6/{index}"))
        text = caption(scene, Random(f"caption/6/{index}"))
        assert make_scene(6, index) == make_scene(6, index, two_coloured=0.0) == (scene, text)


def test_a_share_of_a_half_makes_over_some_of_the_others_and_leaves_the_rest():
    kept = made_over = 0
    for index in range(200):
        usual, shared = make_scene(7, index)[0], make_scene(7, index, two_coloured=0.5)[0]
        kept += shared == usual
        made_over += shared != usual
        assert shared == usual or (is_two_coloured(shared) and not is_two_coloured(usual))
    assert kept > 60
    assert made_over > 40


def test_a_folder_remembers_its_share(tmp_path):
    folder = write_folder(tmp_path / "set", 2, size=32, two_coloured=1.0, workers=1)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [
        draw_scene(0, index, 32, two_coloured=1.0)[1] for index in range(2)
    ]
    write_folder(folder, 3, size=32, two_coloured=1.0, workers=1)
    with pytest.raises(SceneError, match="choose another folder"):
        write_folder(folder, 3, size=32, workers=1)


def test_a_folder_without_a_share_remembers_what_older_ones_did(tmp_path):
    folder = write_folder(tmp_path / "set", 1, size=32, workers=1)
    assert json.loads((folder / "scenes.json").read_text()) == {"seed": 0, "size": 32}


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused_in_one_line(tmp_path, share):
    with pytest.raises(SceneError, match="choose 0 to 1") as refusal:
        draw_scene(0, 0, 32, two_coloured=share)
    assert "\n" not in str(refusal.value)
    with pytest.raises(SceneError, match="choose 0 to 1"):
        write_folder(tmp_path / "set", 1, two_coloured=share)
    assert not (tmp_path / "set").exists()
