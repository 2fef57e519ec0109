"""The particular dog and cat are themselves in every view, and are in no training set."""

import json
from dataclasses import replace
from random import Random

import pytest
from PIL import Image, ImageChops

from sd_scenes import (
    THINGS,
    SceneError,
    draw_subject,
    make_scene,
    make_view,
    paint_scene,
    subjects,
    vocabulary,
    write_folder,
)
from sd_scenes.canvas import Canvas
from sd_scenes.colours import NAMED, Colour
from sd_scenes.subjects import SUBJECTS

KEY = "#00ff66"
VIEWS = [(name, index) for name in subjects() for index in range(14)]


def apart(picture: Image.Image, other: Image.Image) -> Image.Image:
    """Return how far the channel that differs most lies apart."""
    red, green, blue = ImageChops.difference(picture, other).split()
    return ImageChops.lighter(red, ImageChops.lighter(green, blue))


def num_pixels(picture: Image.Image, ground: Image.Image, colour: str) -> int:
    """Return how many pixels upon ``ground`` are about of ``colour``."""
    like = apart(picture, Image.new("RGB", picture.size, colour)).point(lambda v: 255 * (v < 36))
    upon = apart(picture, ground).point(lambda v: 255 * (v > 20))
    return ImageChops.multiply(like, upon).histogram()[255]


def upon_key(draw, size: int = 160) -> tuple[Image.Image, Image.Image]:
    canvas = Canvas(160)
    canvas.rect((0, 0), 160, 160, KEY)
    with canvas.group(move=(80, 130)):
        draw(canvas)
    return canvas.render(size), Image.new("RGB", (size, size), KEY)


def test_there_are_a_dog_and_a_cat():
    assert {SUBJECTS[name].thing for name in subjects()} == {"dog", "cat"}


@pytest.mark.parametrize("name", subjects())
def test_the_same_view_has_the_same_pixels_and_words(name):
    first, second = draw_subject(name, 3, 48), draw_subject(name, 3, 48)
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1] == second[1]
    assert first[0].size == (48, 48)


@pytest.mark.parametrize("name", subjects())
def test_another_index_or_seed_is_another_view(name):
    pictures = {
        draw_subject(name, index, 32, seed=seed)[0].tobytes()
        for seed in (0, 1)
        for index in range(6)
    }
    assert len(pictures) == 12


@pytest.mark.parametrize("name", subjects())
def test_few_views_show_every_pose_and_seven_every_dry_place(name):
    scenes = [make_view(name, index)[0] for index in range(7)]
    assert len({scene.items[0].pose % 3 for scene in scenes[:3]}) == 3
    assert len({scene.place for scene in scenes}) == 7
    assert "water" not in {scene.place for scene in scenes}
    assert len({scene.items[0].size for scene in scenes}) == 7


@pytest.mark.parametrize(("name", "index"), VIEWS)
def test_every_view_shows_every_marking(name, index):
    scene, _ = make_view(name, index)
    picture, ground = paint_scene(scene), paint_scene(replace(scene, items=()))
    for mark in SUBJECTS[name].marks:
        assert num_pixels(picture, ground, mark) >= 5, mark


@pytest.mark.parametrize("name", subjects())
def test_no_ordinary_one_has_all_the_markings_whatever_its_colour(name):
    subject = SUBJECTS[name]
    for colour in NAMED:
        for pose in range(3):
            picture, ground = upon_key(
                lambda canvas, colour=colour, pose=pose: THINGS[subject.thing].draw(
                    canvas, Colour.named(colour), Random(pose)
                )
            )
            assert not all(num_pixels(picture, ground, mark) >= 5 for mark in subject.marks)


@pytest.mark.parametrize("name", subjects())
def test_every_pose_keeps_to_the_box_of_its_kind(name):
    subject, slack = SUBJECTS[name], 8.0
    kind = THINGS[subject.thing]
    for pose in range(12):
        picture, ground = upon_key(lambda canvas, pose=pose: subject.draw(canvas, pose))
        left, top, right, bottom = apart(picture, ground).point(lambda v: 255 * (v > 40)).getbbox()
        assert left >= 80 - kind.width / 2 - slack
        assert right <= 80 + kind.width / 2 + slack
        assert top >= 130 - kind.height - slack
        assert bottom <= 130 + slack


@pytest.mark.parametrize(("name", "index"), VIEWS)
def test_every_view_is_whole_and_shows_it_alone(name, index):
    scene, _ = make_view(name, index)
    (item,) = scene.items
    half = THINGS[item.thing].width * item.size / 200
    assert item.x - half >= 3
    assert item.x + half <= 125
    assert item.y - THINGS[item.thing].height * item.size / 100 >= 3
    assert item.size >= 55


@pytest.mark.parametrize(("name", "index"), VIEWS)
def test_a_caption_names_the_kind_and_the_place_in_words_of_the_vocabulary(name, index):
    scene, text = make_view(name, index)
    assert text.startswith(f"a {SUBJECTS[name].thing} on ")
    assert scene.place in text
    assert set(text.replace(",", " ").split()) <= vocabulary()
    assert name not in text


def test_no_scene_and_no_word_of_the_training_sets_is_about_them():
    assert not set(subjects()) & (set(THINGS) | vocabulary())
    for index in range(300):
        scene, _ = make_scene(0, index)
        assert all(item.subject is None for item in scene.items)


def test_a_folder_of_views_is_written_remembered_and_continued(tmp_path):
    folder = write_folder(tmp_path / "rex", 2, seed=3, size=32, subject="rex", workers=1)
    write_folder(folder, 3, seed=3, size=32, subject="rex", workers=1)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    views = [draw_subject("rex", index, 32, seed=3) for index in range(3)]
    assert [row["text"] for row in rows] == [text for _, text in views]
    for row, (picture, _) in zip(rows, views, strict=True):
        with Image.open(folder / row["file_name"]) as written:
            assert written.tobytes() == picture.tobytes()
    for other in ("momo", None):
        with pytest.raises(SceneError, match="choose another folder"):
            write_folder(folder, 3, seed=3, size=32, subject=other, workers=1)


def test_an_unknown_subject_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(SceneError, match=r"'fido'.*rex, momo") as refusal:
        write_folder(tmp_path / "set", 1, subject="fido")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "set").exists()


def test_a_view_takes_no_share_of_two_coloured_scenes(tmp_path):
    with pytest.raises(SceneError, match="leave one of them out"):
        write_folder(tmp_path / "set", 1, subject="rex", two_coloured=0.5)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(("index", "size"), [(0, 8), (0, 5000), (-1, 64)])
def test_an_impossible_view_is_refused_in_one_line(index, size):
    with pytest.raises(SceneError) as refusal:
        draw_subject("rex", index, size)
    assert "\n" not in str(refusal.value)
