"""Captions are plain words that say what the scene shows."""

from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from sd_scenes import (
    THINGS,
    SceneError,
    caption,
    compose,
    eval_prompts,
    make_scene,
    model_folder,
    vocabulary,
)

TEXTS = [make_scene(11, index) for index in range(4000)]


def words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def test_captions_use_the_vocabulary_lower_case_letters_and_commas_only():
    known = vocabulary()
    assert len(known) < 250
    for _, text in TEXTS:
        assert set(words(text)) <= known
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyz ,")
        assert "  " not in text
        assert text == text.strip()


def test_every_word_of_the_vocabulary_is_used():
    used = {
        word
        for _, text in (make_scene(12, index, marked=0.1) for index in range(30000))
        for word in words(text)
    }
    assert used == vocabulary()


def test_articles_fit_the_next_word():
    for _, text in TEXTS:
        all_words = words(text)
        for article, word in pairwise(all_words):
            if article == "an":
                assert word[0] in "aeiou", text
            if article == "a":
                assert word[0] not in "aeiou", text


def test_numbers_take_the_plural():
    for scene, text in TEXTS:
        group = scene.groups[0]
        if group.count > 1:
            assert f"{('', '', 'two', 'three')[group.count]} " in text
            assert THINGS[group.thing].plural in words(text)


def test_captions_name_the_things_and_the_colours_they_have_to():
    for scene, text in TEXTS:
        for group in scene.groups:
            thing = THINGS[group.thing]
            name = thing.name if group.count == 1 else thing.plural
            assert (f"{group.colour} {name}" if group.colour else name) in text


def test_an_unexpected_background_is_named():
    hints = {"night": "night", "sunset": "sunset", "cloudy": "cloud"}
    for scene, text in TEXTS:
        hint = hints.get(scene.background)
        if hint is not None:
            assert hint in text
        for other in set(hints.values()) - {hint}:
            assert other not in text or (
                other == "cloud" and "cloud" in {g.thing for g in scene.groups}
            )


def test_the_same_scene_is_said_in_many_ways_mostly_plainly():
    texts = Counter()
    scene = next(
        scene
        for scene, _ in TEXTS
        if len(scene.groups) == 1
        and scene.groups[0].count == 1
        and scene.place == "mat"
        and scene.names_place
        and not scene.names_background
    )
    for seed in range(300):
        texts[caption(scene, Random(seed))] += 1
    assert len(texts) >= 6
    plainest, times = texts.most_common(1)[0]
    assert times > 150
    assert plainest.startswith("a")


def test_evaluation_prompts_say_what_they_ask_for():
    prompts = eval_prompts(0, 60)
    assert len({prompt.text for prompt in prompts}) == 60
    assert prompts == eval_prompts(0, 60)
    for prompt in prompts:
        assert set(words(prompt.text)) <= vocabulary()
        if prompt.place is not None and prompt.count == 1 and prompt.place_colour is not None:
            assert f"{prompt.place_colour} {prompt.place}" in prompt.text
        if prompt.colour is not None:
            assert prompt.colour in prompt.text
        if prompt.place_colour is not None:
            assert prompt.place is not None


def test_a_missing_model_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("sd_scenes.model.__file__", str(tmp_path / "model.py"))
    with pytest.raises(SceneError, match="no weights") as refusal:
        model_folder()
    assert "\n" not in str(refusal.value)


def test_composition_hangs_on_its_random_numbers_alone():
    assert compose(Random("x")) == compose(Random("x"))
