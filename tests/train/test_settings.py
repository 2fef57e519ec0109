from pathlib import Path

import pytest

from sd_train import DenoiserTrainConfig, TrainError, VAETrainConfig, load_toml, save_config

RECIPES = Path(__file__).parents[2] / "recipes"
MINIMAL = '[trainer]\nsteps = 10\n[data]\nfolder = "pictures"\n'


def _load(tmp_path: Path, text: str, **overrides: object) -> VAETrainConfig:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return load_toml(VAETrainConfig, path, {k.replace("__", "."): v for k, v in overrides.items()})


def test_overrides_win_over_the_file_and_none_means_not_given(tmp_path: Path) -> None:
    config = _load(tmp_path, MINIMAL, trainer__steps="20", trainer__seed=None, vae__preset="scenes")
    assert (config.trainer.steps, config.trainer.seed, config.vae.preset) == (20, 0, "scenes")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL.replace("10", "0"), r"run.toml: trainer.steps = 0: .*greater than or equal to 1"),
        (MINIMAL.replace("steps", "stepz"), r"did you mean 'steps'\?"),
        ('[data]\nfolder = "x"\n', r"trainer is missing"),
        (MINIMAL + "size = 64\ncrop = 65\n", r"data: crop 65 exceeds size 64; use at most 64"),
        (MINIMAL.replace("10", "ten"), r"cannot be read"),
        (MINIMAL + '[loss]\nreconstruction = "l3"\n', r"loss.reconstruction = 'l3'.*'l1' or 'mse'"),
        (MINIMAL + "[adversarial]\nstartstep = 3\n", r"did you mean 'start_step'\?"),
        (MINIMAL + '[perceptual]\nvgg = "x"\n', r"perceptual\.weights is missing"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TrainError, match=message) as caught:
        _load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_missing_run_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"nothing\.toml does not exist"):
        load_toml(VAETrainConfig, tmp_path / "nothing.toml")


def test_saved_settings_read_back_equal(tmp_path: Path) -> None:
    config = _load(tmp_path, MINIMAL)
    save_config(config, tmp_path / "saved.toml")
    assert load_toml(VAETrainConfig, tmp_path / "saved.toml") == config


def test_a_frozen_text_encoder_needs_weights(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('vae = "x"\n' + MINIMAL + "[text]\ntrain = false\n")
    with pytest.raises(TrainError, match="a frozen text encoder needs `folder`"):
        load_toml(DenoiserTrainConfig, path)


def test_cached_latents_and_random_crops_exclude_each_other(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('vae = "x"\n' + MINIMAL + "flip = true\n[text]\ntrain = true\n")
    with pytest.raises(TrainError, match=r"needs data\.crop = 0 and data\.flip = false"):
        load_toml(DenoiserTrainConfig, path)


def test_the_recipes_are_valid() -> None:
    assert load_toml(VAETrainConfig, RECIPES / "scenes-vae.toml").vae.preset == "scenes"
    assert load_toml(DenoiserTrainConfig, RECIPES / "scenes-unet.toml").text.train
    classes = load_toml(DenoiserTrainConfig, RECIPES / "scenes-classes.toml")
    assert (classes.text, classes.data.labels) == (None, "data")
