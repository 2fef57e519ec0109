"""A description is found by which words a model denoises the pictures best with."""

from pathlib import Path

import pytest

from sd_scenes import draw_scene, model_folder, write_folder
from sd_train import TextualInversionConfig, TrainError
from sd_train.describing import described
from sd_train.finetune_presets import finetune_config
from sd_train.tasks.textual_inversion import build_textual_inversion_task
from tests.train.toy import Recorder

SCARVES = ("a red scarf", "a green scarf")


def found(pictures: Path, run: Path, **offered: object) -> tuple[str, list[str]]:
    values = {
        "model": str(model_folder()),
        "data": {"folder": str(pictures)},
        "trainer": {"device": "cpu"},
        "samples": {"count": 0},
        "described": offered,
    }
    config = finetune_config(TextualInversionConfig, values, origin="the test")
    heard = Recorder()
    task = build_textual_inversion_task(config, run, heard)
    return task.config.initial, heard.messages


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["white"], "white dog"),
        ([""], "dog"),
        (["", "patches", ""], "dog with patches"),
        (["white", "patches", "", "one ear up"], "white dog with patches and one ear up"),
    ],
)
def test_words_are_put_in_front_and_behind(words: list[str], text: str) -> None:
    assert described("dog", words) == text


def test_a_subject_is_described_as_it_looks(tmp_path: Path) -> None:
    pictures = tmp_path / "rex"
    write_folder(pictures, 3, subject="rex")
    offered = {"adjectives": (), "details": (SCARVES, ("one ear up",))}
    text, messages = found(pictures, tmp_path / "run", **offered)
    assert text == "dog with a green scarf and one ear up"
    assert any(f"described as {text!r}: loss 0." in line for line in messages)


def test_words_that_the_model_does_not_know_are_told(tmp_path: Path) -> None:
    pictures = tmp_path / "rex"
    write_folder(pictures, 1, subject="rex")
    with pytest.raises(TrainError, match="described has 'tartan', which is no word that the model"):
        found(pictures, tmp_path / "run", adjectives=("white", "tartan"))


def test_the_embedded_models_preset_describes_what_has_no_initial_word(tmp_path: Path) -> None:
    pictures = tmp_path / "rex"
    write_folder(pictures, 1, subject="rex")
    values = {"model": str(model_folder()), "data": {"folder": str(pictures)}}
    for more, begins in (({}, True), ({"initial": "dog"}, False), ({"num_vectors": 4}, False)):
        config = finetune_config(TextualInversionConfig, {**values, **more}, origin="the test")
        assert bool(config.described.words()) == begins
        assert (config.trainer.steps < 500) == begins


def test_what_a_subject_has_not_is_not_said(tmp_path: Path) -> None:
    picture, caption = draw_scene(5, 80)
    assert caption == "an orange cat at sunset"
    pictures = tmp_path / "cat"
    pictures.mkdir()
    picture.save(pictures / "0.png")
    (pictures / "0.txt").write_text("a cat at sunset")
    offered = {"adjectives": ("black", "orange"), "details": (SCARVES,)}
    assert found(pictures, tmp_path / "run", **offered)[0] == "orange cat"
