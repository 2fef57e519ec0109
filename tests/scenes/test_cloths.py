"""A share of the mats and rugs can be made to have any colour, which the caption names."""

import json
from collections import Counter
from itertools import count, islice

import pytest

from sd_scenes import SceneError, make_scene, write_folder
from sd_scenes.colours import NAMED


def on_cloths(seed: int, cloths: float):
    for index in count():
        usual = make_scene(seed, index)[0]
        if usual.place in ("mat", "rug"):
            yield usual, *make_scene(seed, index, cloths=cloths)


def test_every_colour_is_as_likely_as_another_and_named():
    rows = list(islice(on_cloths(3, 1.0), 440))
    seen = Counter(scene.place_colour for _, scene, _ in rows)
    assert set(seen) == set(NAMED)
    assert min(seen.values()) > 15
    assert max(seen.values()) < 75
    for _, scene, text in rows:
        assert f"{scene.place_colour} {scene.place}" in text


def test_nothing_but_the_cloth_changes():
    for usual, scene, _ in islice(on_cloths(4, 1.0), 100):
        assert (scene.items, scene.groups, scene.place) == (usual.items, usual.groups, usual.place)
    elsewhere = (i for i in count() if make_scene(4, i)[0].place not in ("mat", "rug"))
    for index in islice(elsewhere, 50):
        assert make_scene(4, index, cloths=1.0) == make_scene(4, index)


def test_half_a_share_changes_half_of_them():
    rows = list(islice(on_cloths(5, 0.5), 300))
    assert 105 < sum(usual != scene for usual, scene, _ in rows) < 195


def test_a_folder_remembers_its_share(tmp_path):
    folder = write_folder(tmp_path / "set", 2, size=32, cloths=0.5, workers=1)
    told = {"seed": 0, "size": 32, "cloths": 0.5}
    assert json.loads((folder / "scenes.json").read_text()) == told
    with pytest.raises(SceneError, match="choose another folder"):
        write_folder(folder, 2, size=32, workers=1)
    with pytest.raises(SceneError, match="leave one of them out"):
        write_folder(tmp_path / "rex", 1, subject="rex", cloths=0.5)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused_in_one_line(tmp_path, share):
    with pytest.raises(SceneError, match=r"cloths.*choose 0 to 1"):
        write_folder(tmp_path / "set", 1, cloths=share)
    assert not (tmp_path / "set").exists()
