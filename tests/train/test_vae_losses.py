"""Tiny but whole runs of the autoencoder with the learned parts of its loss."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy import Recorder, assert_same_checkpoint

from sd_checkpoint import Checkpoint, CheckpointError, save_safetensors
from sd_pipeline import load_vae
from sd_train import TrainError, VAETrainConfig, export_run, run
from sd_train.settings import load_toml
from sd_train.tasks.vae import build_vae_task
from sd_vae import LPIPS

ADVERSARIAL = {"start_step": 1, "num_filters": 4, "num_layers": 2, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def lpips_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """VGG16 in torchvision's names and LPIPS's own layers, in two files."""
    folder = tmp_path_factory.mktemp("lpips")
    torch.manual_seed(0)
    state = LPIPS().half().state_dict()
    vgg = {key: value for key, value in state.items() if key.startswith("features.")}
    lins = {
        f"lin{i}.model.1.weight": torch.full_like(state[f"lins.{i}"], 0.5)[None, :, None, None]
        for i in range(5)
    }
    save_safetensors(folder / "vgg16.safetensors", vgg)
    torch.save({key: value.contiguous() for key, value in lins.items()}, folder / "lpips.pth")
    return folder / "lpips.pth", folder / "vgg16.safetensors"


def settings(
    pictures: Path, *, trainer: dict[str, object] | None = None, **more: object
) -> VAETrainConfig:
    return VAETrainConfig.model_validate(
        {
            "trainer": {
                "steps": 4,
                "batch_size": 2,
                "learning_rate": 1e-3,
                "validate_every": 3,
                "save_every": 0,
                "log_every": 1,
                "device": "cpu",
                "tensorboard": False,
                **(trainer or {}),
            },
            "data": {"folder": str(pictures), "size": 32, "crop": 16, "holdout": 2},
            "vae": {
                "preset": "scenes",
                "fields": {
                    "latent_channels": 4,
                    "block_out_channels": [8, 8],
                    "norm_num_groups": 4,
                },
            },
            **more,
        }
    )


def scalars(run_folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_folder / "scalars.jsonl").open()]


@pytest.mark.parametrize("stop_at", [1, 3])
@pytest.mark.parametrize(
    ("precision", "more"),
    [
        ("fp32", {"adversarial": ADVERSARIAL, "loss": {"learn_logvar": True}}),
        ("fp16", {"adversarial": ADVERSARIAL}),
        ("bf16", {"adversarial": {**ADVERSARIAL, "norm": "group", "loss": "non_saturating"}}),
    ],
)
def test_a_stopped_and_resumed_run_equals_a_straight_one_discriminator_included(
    pictures: Path, tmp_path: Path, precision: str, more: dict[str, object], stop_at: int
) -> None:
    config = settings(pictures, trainer={"precision": precision, "accumulate": 2}, **more)
    straight = run(config, tmp_path / "straight")
    run(config, tmp_path / "resumed", Recorder(stop_at))
    again = load_toml(VAETrainConfig, tmp_path / "resumed/config.toml")
    resumed = run(again, tmp_path / "resumed", resume=True)
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)
    slots = Checkpoint.open(straight.checkpoint / "optimizer.safetensors")
    assert "discriminator.main.0.weight/exp_avg" in slots
    assert load_vae(tmp_path / "straight/model").config.latent_channels == 4


def test_before_the_discriminators_first_step_the_run_is_one_without_it(
    pictures: Path, tmp_path: Path
) -> None:
    late = settings(pictures, adversarial={**ADVERSARIAL, "start_step": 2})
    folders = {}
    for name, config in (("with", late), ("without", settings(pictures))):
        stopped = run(config, tmp_path / name, Recorder(2))
        folders[name] = stopped.checkpoint
        export_run(config, tmp_path / name, tmp_path / name / "out")
    for name in ("weights", "ema", "optimizer"):
        ours, alone = (Checkpoint.open(f / f"{name}.safetensors") for f in folders.values())
        assert {key for key in ours if not key.startswith("discriminator.")} == alone.keys()
        assert all(torch.equal(ours[key], alone[key]) for key in alone), name
    states = [load_vae(tmp_path / name / "out").state_dict() for name in folders]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])


def test_the_log_tells_what_either_side_does(pictures: Path, tmp_path: Path) -> None:
    run(settings(pictures, adversarial=ADVERSARIAL, loss={"learn_logvar": True}), tmp_path)
    first, second = scalars(tmp_path)[:2]
    assert first["train/adversarial"] == 0
    assert second["train/adversarial"] != 0
    names = {"opponent_loss", "opponent_grad_norm", "logits_real", "logits_recon", "logvar"}
    assert {f"train/{name}" for name in names} <= second.keys()
    assert "train/opponent_loss" not in first


def test_a_decoder_alone_can_learn_against_a_discriminator(pictures: Path, tmp_path: Path) -> None:
    first = run(settings(pictures, trainer={"steps": 1}), tmp_path / "first")
    config = settings(
        pictures,
        adversarial={**ADVERSARIAL, "adaptive": False},
        init_from=str(first.model),
        decoder_only=True,
    )
    assert run(config, tmp_path / "second").status == "finished"


def test_two_files_make_the_perceptual_term_and_validation_tells_it(
    pictures: Path, lpips_files: tuple[Path, Path], tmp_path: Path
) -> None:
    lpips, vgg = lpips_files
    perceptual = {"weights": str(lpips), "vgg": str(vgg)}
    config = settings(
        pictures,
        trainer={"steps": 1},
        perceptual=perceptual,
        loss={"perceptual_weight": 2.0},
        adversarial={**ADVERSARIAL, "start_step": 0},
    )
    run(config, tmp_path)
    train, validation = scalars(tmp_path)
    parts = train["train/l1"] + 2.0 * train["train/perceptual"] + train["train/adversarial"]
    assert train["train/loss"] == pytest.approx(parts, rel=1e-4)
    assert validation["validation/perceptual"] > 0
    assert not [
        key
        for key in Checkpoint.open(tmp_path / "checkpoints/step-00000001/weights.safetensors")
        if "features" in key
    ]


def test_vgg16_alone_counts_its_channels_equally_and_says_so(
    pictures: Path, lpips_files: tuple[Path, Path]
) -> None:
    lpips, vgg = lpips_files
    recorder = Recorder()
    alone = build_vae_task(settings(pictures, perceptual={"weights": str(vgg)}), recorder)
    whole = build_vae_task(settings(pictures, perceptual={"weights": str(lpips), "vgg": str(vgg)}))
    assert any("its channels count equally" in line for line in recorder.messages)
    images = torch.rand(2, 2, 3, 16, 16) * 2 - 1
    assert alone.perceptual is not None
    assert whole.perceptual is not None
    torch.testing.assert_close(0.5 * alone.perceptual(*images), whole.perceptual(*images))


def test_wrong_files_are_told_in_one_line(
    pictures: Path, lpips_files: tuple[Path, Path], tmp_path: Path
) -> None:
    lpips, _ = lpips_files
    other, half = tmp_path / "other.safetensors", tmp_path / "half.safetensors"
    save_safetensors(other, {"encoder.conv_in.weight": torch.zeros(1)})
    save_safetensors(half, {"features.0.weight": torch.zeros(64, 3, 3, 3)})
    cases = (
        (tmp_path / "none.pth", TrainError, r"perceptual\.weights = .* is no file; nothing is"),
        (other, TrainError, r"perceptual\.weights = .* holds neither LPIPS nor VGG16"),
        (lpips, TrainError, r"LPIPS's own layers alone; name a file of VGG16"),
        (half, CheckpointError, r"half\.safetensors.*features\.10\.bias"),
    )
    for path, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            build_vae_task(settings(pictures, perceptual={"weights": str(path)}))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"adversarial": {"num_layers": 3}},
            r"data\.crop = 16 is too small for \[adversarial\]; use 24 or more",
        ),
        (
            {"adversarial": {"num_layers": 2}, "equivariance": 0.5},
            r"data\.crop = 16, halved by equivariance, is too small .* use 24 or more",
        ),
        (
            {"perceptual": {"weights": "x"}, "equivariance": 0.5},
            r"too small for \[perceptual\]; use 32 or more",
        ),
    ],
)
def test_pictures_too_small_for_a_part_of_the_loss_are_refused(
    pictures: Path, more: dict[str, object], message: str
) -> None:
    with pytest.raises(TrainError, match=message):
        build_vae_task(settings(pictures, **more))


def test_a_discriminator_whose_turn_never_comes_is_refused(pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        f'[trainer]\nsteps = 5\n[data]\nfolder = "{pictures}"\n[adversarial]\nstart_step = 5'
    )
    with pytest.raises(TrainError, match=r"start_step 5 is not below trainer\.steps 5"):
        load_toml(VAETrainConfig, path)


CODEBOOK = {
    "kind": "vq",
    "vae": {
        "preset": "scenes",
        "fields": {
            "latent_channels": 4,
            "block_out_channels": [8, 8],
            "norm_num_groups": 4,
            "num_embeddings": 16,
        },
    },
}


@pytest.mark.parametrize("more", [{}, {"adversarial": ADVERSARIAL, "equivariance": 0.5}])
def test_a_stopped_and_resumed_run_with_a_codebook_equals_a_straight_one(
    pictures: Path, tmp_path: Path, more: dict[str, object]
) -> None:
    data = {"folder": str(pictures), "size": 32, "crop": 24, "holdout": 2}
    config = settings(pictures, **CODEBOOK, data=data, **more)
    straight = run(config, tmp_path / "straight")
    run(config, tmp_path / "resumed", Recorder(2))
    again = load_toml(VAETrainConfig, tmp_path / "resumed/config.toml")
    resumed = run(again, tmp_path / "resumed", resume=True)
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)
    last = scalars(tmp_path / "straight")[-1]
    assert 0 < last["validation/codebook_share"] <= 1
    assert 1 <= last["validation/codebook_perplexity"] <= 16
    assert last["validation/kl"] == 0
    assert scalars(tmp_path / "straight")[0]["train/codebook"] > 0


def test_a_run_goes_on_from_an_exported_codebook_and_knows_its_kind(
    pictures: Path, tmp_path: Path
) -> None:
    first = run(settings(pictures, **CODEBOOK, trainer={"steps": 1}), tmp_path / "first")
    assert first.model is not None
    on = {"init_from": str(first.model), "decoder_only": True, "export_dtype": "fp32"}
    second = run(settings(pictures, **CODEBOOK, **on), tmp_path / "second")
    assert second.model is not None
    before, after = load_vae(first.model), load_vae(second.model)
    assert after.config == before.config
    changed = {
        key.split(".")[0]
        for key, value in before.state_dict().items()
        if not torch.equal(value, after.state_dict()[key])
    }
    assert changed == {"decoder", "post_quant_conv"}
    with pytest.raises(TrainError, match=r"kind = 'kl', but init_from = .* one of kind 'vq'"):
        build_vae_task(settings(pictures, init_from=str(first.model)))
