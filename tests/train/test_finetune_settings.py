"""Settings and presets of the finetuners: what is left open, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from finetuning import (
    KINDS,
    settings,
    write_pictures,
)

from sd_train import TrainError, build_task
from sd_train.finetune_presets import PRESETS, finetune_config
from sd_train.run import rehearse_run
from sd_train.settings import parse_config

METHODS = tuple(KINDS)


@pytest.mark.parametrize(
    ("method", "more", "message"),
    [
        ("lora", {"lora": {"targets": "attention"}}, r"lora\.targets"),
        ("lora", {"lora": {"layout": "diffusers", "kind": "loha"}}, "cannot hold a loha"),
        ("lora", {"lora": {"rnk": 3}}, "did you mean 'rank'"),
        ("lora", {"name": "a/b"}, "leave out"),
        ("textual_inversion", {"placeholder": "my dog"}, "must be one word"),
        ("hypernetwork", {"hypernetwork": {"layer_structure": (1, 2)}}, "give factors from 1 to 1"),
        ("dreambooth", {"train_text": True, "lora": {}}, r"train_text is lora\.text"),
    ],
)
def test_wrong_settings_are_told_in_one_line(
    tiny_model: Path, cats: Path, method: str, more: dict[str, Any], message: str
) -> None:
    values = settings(method, tiny_model, cats).model_dump(exclude_none=True) | more
    with pytest.raises(TrainError, match=message) as caught:
        parse_config(KINDS[method], values, origin="run.toml")
    assert "\n" not in str(caught.value)


def test_an_initial_word_that_the_model_does_not_know_is_told(
    tiny_model: Path, cats: Path, tmp_path: Path
) -> None:
    config = settings("textual_inversion", tiny_model, cats, initial="zebra")
    with pytest.raises(TrainError, match="initial = 'zebra' is no word that the model knows"):
        build_task(config, tmp_path)


def test_what_the_pictures_show_is_guessed_from_captions_or_the_folders_name(
    tiny_model: Path, tmp_path: Path
) -> None:
    nouns = {}
    for name, captions in (
        ("rex", ("two dogs under a tree", "black dogs")),
        ("my_cat-2", ("", "")),
        ("photos", ("", "")),
    ):
        folder = write_pictures(tmp_path / name, captions)
        task = build_task(settings("lora", tiny_model, folder), tmp_path / f"run-{name}")
        nouns[name] = (task.config.noun, task.config.instance_prompt, task.config.name)
    assert nouns == {
        "rex": ("dogs", "a sks dogs", "dogs"),
        "my_cat-2": ("cat", "a sks cat", "cat"),
        "photos": ("", "a sks", "subject"),
    }


@pytest.mark.parametrize("method", METHODS)
def test_presets_fill_what_is_left_open_and_nothing_else(
    tiny_model: Path, cats: Path, method: str
) -> None:
    values = {"model": str(tiny_model), "data": {"folder": str(cats)}, "trainer": {"steps": 7}}
    config = finetune_config(KINDS[method], values, origin="here")
    preset = PRESETS[method]["scenes"]["trainer"]
    assert config.trainer.steps == 7
    assert config.trainer.learning_rate == preset["learning_rate"]
    assert (config.data.size, config.data.holdout, config.trainer.ema_decay) == (64, 0, 0)


@pytest.mark.parametrize("method", METHODS)
def test_every_preset_is_valid(tiny_model: Path, cats: Path, method: str) -> None:
    for preset in PRESETS[method].values():
        values = {"model": str(tiny_model), "data": {"folder": str(cats)}, **preset}
        parse_config(KINDS[method], values, origin="preset")


@pytest.mark.parametrize("line", ["sd1", "sdxl"])
@pytest.mark.parametrize("method", METHODS)
def test_a_models_family_chooses_the_preset_and_a_dry_run_tries_it(
    families: dict[str, Path], cats: Path, tmp_path: Path, method: str, line: str
) -> None:
    values = {
        "model": str(families[line]),
        "data": {"folder": str(cats)},
        "trainer": {"device": "cpu"},
        "samples": {"count": 0},
        **({"num_class_images": 1} if method == "dreambooth" else {}),
    }
    config = finetune_config(KINDS[method], values, origin="here")
    preset = PRESETS[method][line]["trainer"]
    assert preset.items() <= config.trainer.model_dump().items()
    assert rehearse_run(config, tmp_path).num_parameters > 0
    assert not (tmp_path / "checkpoints").exists()


def test_a_lora_of_dreambooth_takes_the_loras_preset(tiny_model: Path, cats: Path) -> None:
    values = {"model": str(tiny_model), "data": {"folder": str(cats)}, "lora": {"rank": 2}}
    config = finetune_config(KINDS["dreambooth"], values, origin="here")
    assert config.lora.rank == 2
    assert config.trainer.learning_rate == PRESETS["lora"]["scenes"]["trainer"]["learning_rate"]
