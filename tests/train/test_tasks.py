"""Tiny but whole runs of both tasks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy import Recorder, assert_same_checkpoint

from sd_checkpoint import load_json
from sd_pipeline import load_model, load_vae
from sd_train import DenoiserTrainConfig, TrainError, VAETrainConfig, build_task, export_run, run
from sd_train.build import build_denoiser_task
from sd_train.images import to_float
from sd_train.seeds import generator_for
from sd_train.settings import load_toml
from sd_train.tasks.vae import LatentStatistics, build_vae_task
from sd_unet import DiT
from sd_vae import VQModel

COLOURS = ("red", "blue", "white")
TRAINER = {
    "steps": 4,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "validate_every": 3,
    "save_every": 0,
    "device": "cpu",
    "tensorboard": False,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    lines = []
    for i in range(8):
        colour = COLOURS[i % len(COLOURS)]
        image = Image.new("RGB", (32, 32), colour)
        image.putpixel(tuple(random.integers(0, 32, 2).tolist()), (0, 0, 0))
        image.save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"a {colour} square"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def _vae_config(pictures: Path, **trainer: object) -> VAETrainConfig:
    fields = {"latent_channels": 4, "block_out_channels": [8, 8], "norm_num_groups": 4}
    return VAETrainConfig.model_validate(
        {
            "trainer": {**TRAINER, **trainer},
            "data": {"folder": str(pictures), "size": 32, "crop": 16, "holdout": 2},
            "vae": {"preset": "scenes", "fields": fields},
            "loss": {"gradient_weight": 0.5},
        }
    )


@pytest.fixture(scope="module")
def vae_folder(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = run(_vae_config(pictures), tmp_path_factory.mktemp("vae"))
    assert result.model is not None
    return result.model


def _denoiser_config(pictures: Path, vae_folder: Path, **settings: object) -> DenoiserTrainConfig:
    values: dict[str, object] = {
        "trainer": TRAINER,
        "data": {"folder": str(pictures), "size": 32, "holdout": 2},
        "vae": str(vae_folder),
        "unet": {
            "preset": "scenes",
            "fields": {
                "block_out_channels": [8, 16],
                "attention_levels": [True, True],
                "num_heads": 2,
                "norm_num_groups": 4,
            },
        },
        "text": {
            "train": True,
            "preset": "scenes",
            "tokenizer": "captions",
            "context_length": 8,
            "fields": {
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_layers": 1,
                "num_heads": 2,
                "max_positions": 8,
            },
        },
        "objective": {"prediction": "v", "weighting": "min_snr", "timesteps": "antithetic"},
        "samples": {"count": 2, "steps": 2, "prompts": ["a red square", "a blue square"]},
    }
    return DenoiserTrainConfig.model_validate(values | settings)


@pytest.mark.parametrize(
    ("precision", "equivariance"), [("fp32", 0.0), ("fp32", 0.5), ("bf16", 0.0)]
)
def test_a_stopped_and_resumed_autoencoder_run_equals_a_straight_one(
    pictures: Path, tmp_path: Path, precision: str, equivariance: float
) -> None:
    config = _vae_config(pictures, precision=precision)
    config = config.model_copy(update={"equivariance": equivariance})
    straight = run(config, tmp_path / "straight")
    run(config, tmp_path / "resumed", Recorder(2))
    resumed = run(
        load_toml(VAETrainConfig, tmp_path / "resumed/config.toml"),
        tmp_path / "resumed",
        resume=True,
    )
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)


def test_an_equivariant_step_decodes_halved_latents_into_halved_pictures(pictures: Path) -> None:
    config = _vae_config(pictures).model_copy(update={"equivariance": 1.0})
    task = build_vae_task(config)
    batch = {"images": task.source.folder.pictures([0, 1])}
    shapes: list[tuple[int, ...]] = []
    task.vae.decoder.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    images = to_float(batch["images"], torch.contiguous_format)
    loss, _ = task.loss(batch, generator_for(0, "loss", 0))
    latents = task.vae.encode(images).mode()
    assert shapes == [(2, latents.shape[1], latents.shape[2] // 2, latents.shape[3] // 2)]
    assert loss.isfinite()


@pytest.mark.parametrize("cache_latents", [True, False])
def test_a_stopped_and_resumed_denoiser_run_equals_a_straight_one(
    pictures: Path, vae_folder: Path, tmp_path: Path, cache_latents: bool
) -> None:
    config = _denoiser_config(
        pictures, vae_folder, cache_latents=cache_latents, sample_posterior=True
    )
    straight = run(config, tmp_path / "straight")
    run(config, tmp_path / "resumed", Recorder(2))
    resumed = run(
        load_toml(DenoiserTrainConfig, tmp_path / "resumed/config.toml"),
        tmp_path / "resumed",
        resume=True,
    )
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)
    assert (tmp_path / "resumed/samples/step-00000004-samples.png").is_file()


@pytest.mark.parametrize("cache_latents", [True, False])
def test_a_stopped_and_resumed_run_with_masks_equals_a_straight_one(
    pictures: Path, vae_folder: Path, tmp_path: Path, cache_latents: bool
) -> None:
    folder = tmp_path / "masked"
    shutil.copytree(pictures, folder)
    for i in range(8):
        mask = Image.new("L", (32, 32))
        mask.paste(255, (0, 0, 8 + i, 32))
        mask.save(folder / f"{i}.mask.png")
    config = _denoiser_config(folder, vae_folder, cache_latents=cache_latents)
    straight = run(config, tmp_path / "straight")
    run(config, tmp_path / "resumed", Recorder(2))
    resumed = run(
        load_toml(DenoiserTrainConfig, tmp_path / "resumed/config.toml"),
        tmp_path / "resumed",
        resume=True,
    )
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)
    unmasked = run(
        _denoiser_config(pictures, vae_folder, cache_latents=cache_latents), tmp_path / "unmasked"
    )
    first, other = (
        json.loads((result.checkpoint.parents[1] / "scalars.jsonl").read_text().splitlines()[-1])
        for result in (straight, unmasked)
    )
    assert first["validation/loss"] < other["validation/loss"]


def test_the_exported_scaling_factor_gives_latents_of_unit_variance(
    pictures: Path, vae_folder: Path
) -> None:
    vae = load_vae(vae_folder)
    folder = build_vae_task(_vae_config(pictures)).folder
    posterior = vae.encode(to_float(folder.pictures(folder.training)))
    noise = torch.randn(64, *posterior.mean.shape, generator=generator_for(0, "test", 0))
    latents = vae.scale(posterior.mean + posterior.std * noise)
    assert float(latents.std()) == pytest.approx(1, rel=0.02)


def test_latent_statistics_are_those_of_samples() -> None:
    mean, std = torch.tensor([1.0, 3.0]), torch.tensor([0.5, 2.0])
    statistics = LatentStatistics()
    statistics.add(mean, std)
    assert statistics.mean == pytest.approx(2)
    assert statistics.std == pytest.approx((1 + (0.25 + 4) / 2) ** 0.5)


def test_the_autoencoder_validates_on_whole_held_out_pictures(
    pictures: Path, tmp_path: Path
) -> None:
    run(_vae_config(pictures), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "scalars.jsonl").open()]
    names = {"l1", "gradient", "kl", "psnr", "ssim", "latent_mean", "latent_std"}
    assert {f"validation/{name}" for name in names} <= lines[-1].keys()
    with Image.open(tmp_path / "samples/step-00000004-reconstruction.png") as shown:
        assert shown.size == (2 * 32, 2 * 32)


@pytest.mark.parametrize("prediction", ["v", "flow"])
def test_a_denoiser_run_exports_a_whole_model(
    pictures: Path, vae_folder: Path, tmp_path: Path, prediction: str
) -> None:
    config = _denoiser_config(pictures, vae_folder, objective={"prediction": prediction})
    result = run(config, tmp_path)
    assert result.model is not None
    parts = load_model(result.model)
    assert parts.scheduler.diffusion.prediction == prediction
    assert parts.scheduler.diffusion.noise_schedule().name == (
        "flow" if prediction == "flow" else "scaled_linear"
    )
    assert parts.text_encoder.tokenizer.check("a green square").unknown == ("green",)
    assert parts.unet.config.sample_size * parts.vae.config.downsampling == 32
    assert load_json(result.model / "unet/config.json")["cross_attention_dim"] == 16


@pytest.mark.parametrize(
    "objective",
    [
        {"noise_offset": 0.1},
        {"multires_discount": 0.3},
        {"weighting": "debiased"},
        {"timesteps": "logit_normal"},
    ],
)
def test_the_objective_is_that_of_the_settings(
    pictures: Path, vae_folder: Path, objective: dict[str, object]
) -> None:
    losses, held_out = [], []
    for settings in ({}, objective):
        task = build_denoiser_task(_denoiser_config(pictures, vae_folder, objective=settings))
        batch = task.source.batch([0, 1], generator_for(0, "data", 0))
        losses.append(float(task.loss(batch, generator_for(0, "loss", 0))[0].detach()))
        held_out.append(task.validate().scalars["loss"])
    assert losses[0] != losses[1]
    weighted = "weighting" in objective
    assert (held_out[0] == held_out[1]) != weighted, "validation has white noise at all timesteps"


DIT_FIELDS = {"channels": 16, "num_layers": 3, "num_heads": 2}


@pytest.mark.parametrize("more", [{}, {"long_skips": True}, {"conditioning": "adaln"}])
def test_a_diffusion_transformer_trains_stops_goes_on_and_is_exported(
    pictures: Path, vae_folder: Path, tmp_path: Path, more: dict[str, object]
) -> None:
    unet = {"preset": "scenes", "fields": DIT_FIELDS | more}
    config = _denoiser_config(pictures, vae_folder, arch="dit", unet=unet)
    straight = run(config, tmp_path / "straight")
    run(config, tmp_path / "run", Recorder(2))
    settings = load_toml(DenoiserTrainConfig, tmp_path / "run/config.toml")
    resumed = run(settings, tmp_path / "run", resume=True)
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)
    assert resumed.model is not None
    network = load_model(resumed.model).unet
    assert isinstance(network, DiT)
    assert network.modulation_out.weight.any(), "what began as zero has learnt"
    assert (tmp_path / "run/samples").is_dir()


def test_a_run_goes_on_from_an_exported_transformer(
    pictures: Path, vae_folder: Path, tmp_path: Path
) -> None:
    unet = {"preset": "scenes", "fields": DIT_FIELDS}
    first = run(_denoiser_config(pictures, vae_folder, arch="dit", unet=unet), tmp_path / "first")
    assert first.model is not None
    begun = str(first.model / "unet")
    config = _denoiser_config(pictures, vae_folder, arch="dit", init_from=begun)
    assert isinstance(build_denoiser_task(config).unet, DiT)
    other = _denoiser_config(pictures, vae_folder, init_from=begun)
    with pytest.raises(TrainError, match="holds a DiT, but arch = 'unet'"):
        build_denoiser_task(other)


def test_a_unets_field_is_no_transformers(pictures: Path, vae_folder: Path) -> None:
    config = _denoiser_config(pictures, vae_folder, arch="dit")
    with pytest.raises(TrainError, match=r"unet\.fields\.block_out_channels is not a setting"):
        build_denoiser_task(config)


def test_a_denoiser_learns_latents_of_a_codebook(pictures: Path, tmp_path: Path) -> None:
    values = _vae_config(pictures, steps=1).model_dump()
    values["kind"] = "vq"
    values["vae"]["fields"]["num_embeddings"] = 16
    trained = run(VAETrainConfig.model_validate(values), tmp_path / "vae")
    assert trained.model is not None
    result = run(_denoiser_config(pictures, trained.model), tmp_path / "unet")
    assert result.model is not None
    assert isinstance(load_model(result.model).vae, VQModel)
    assert load_json(result.model / "model_index.json")["vae"] == ["diffusers", "VQModel"]


def test_latents_are_encoded_once_and_equal_fresh_ones(
    pictures: Path, vae_folder: Path, tmp_path: Path
) -> None:
    config = _denoiser_config(pictures, vae_folder)
    recorder = Recorder()
    first = build_denoiser_task(config, tmp_path, recorder)
    second = build_denoiser_task(config, tmp_path, Recorder())
    assert any("encoding pictures" in line for line in recorder.messages)
    assert len(list(tmp_path.glob("latents-*.safetensors"))) == 1
    fresh = first.vae.encode(to_float(first.source.folder.pictures([3])))
    for task in (first, second):
        cached = task.source.cached([3])
        torch.testing.assert_close(cached["mean"].float(), fresh.mean, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(cached["std"].float(), fresh.std, rtol=1e-3, atol=1e-3)


def test_a_frozen_text_encoder_gives_the_states_it_would_give_live(
    pictures: Path, vae_folder: Path, tmp_path: Path
) -> None:
    trained = run(_denoiser_config(pictures, vae_folder), tmp_path / "first")
    text = {"train": False, "folder": str(trained.model)}
    config = _denoiser_config(pictures, vae_folder, text=text)
    result = run(config, tmp_path / "second")
    assert result.status == "finished"
    task = build_denoiser_task(config, tmp_path / "second/cache")
    assert set(task.modules()) == {"unet"}
    (batch,) = task.source.held_out()
    captions = [task.source.folder.captions[i] for i in task.source.folder.held_out]
    live = task.text_encoder.encode(captions).hidden_states
    torch.testing.assert_close(batch["hidden_states"].float(), live, rtol=1e-2, atol=1e-2)


def test_dropped_captions_become_the_empty_prompt(
    pictures: Path, vae_folder: Path, tmp_path: Path
) -> None:
    data = {"folder": str(pictures), "size": 32, "holdout": 2, "caption_dropout": 0.5}
    task = build_denoiser_task(_denoiser_config(pictures, vae_folder, data=data), tmp_path)
    empty, full = task.text_encoder.tokenizer(["", "a blue square"])
    kinds = []
    for n in range(200):
        (ids,) = task.source.batch([0], generator_for(0, "data", n))["token_ids"]
        assert torch.equal(ids, empty) or torch.equal(ids, full)
        kinds.append(torch.equal(ids, empty))
    assert 70 <= sum(kinds) <= 130


def test_shuffled_tags_are_learnt_and_validation_has_them_as_written(
    pictures: Path, vae_folder: Path, tmp_path: Path
) -> None:
    for path in pictures.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / path.name).with_suffix(".txt").write_text("square, red, small, old")
    data = {"folder": str(tmp_path), "size": 32, "holdout": 2, "caption_dropout": 0.0}
    config = _denoiser_config(pictures, vae_folder, data={**data, "shuffle_tags": True})
    task = build_denoiser_task(config, tmp_path / "cache")
    folder, tokenizer = task.source.folder, task.text_encoder.tokenizer
    orders = folder.in_orders(folder.captions, config.trainer.seed)[folder.training[0]]
    seen = {
        tuple(task.source.batch([0], generator_for(0, "data", n))["token_ids"][0].tolist())
        for n in range(60)
    }
    assert seen == {tuple(ids) for ids in tokenizer(orders).tolist()}
    assert len(seen) > 3
    (written,) = tokenizer(["square, red, small, old"])
    assert (task.source.held_out()[0]["token_ids"] == written).all()


def test_captions_beyond_the_context_are_told(
    pictures: Path, vae_folder: Path, tmp_path: Path
) -> None:
    text = _denoiser_config(pictures, vae_folder).text.model_dump() | {"context_length": 4}
    recorder = Recorder()
    build_denoiser_task(_denoiser_config(pictures, vae_folder, text=text), tmp_path, recorder)
    assert any("longer than 4 tokens and are cut" in line for line in recorder.messages)


def test_networks_that_do_not_fit_each_other_are_refused(
    pictures: Path, vae_folder: Path, tmp_path: Path
) -> None:
    unet = {"preset": "scenes", "fields": {"cross_attention_dim": 24}}
    with pytest.raises(TrainError, match=r"cross_attention_dim is 24, but .* need 16"):
        build_task(_denoiser_config(pictures, vae_folder, unet=unet), tmp_path)


@pytest.mark.parametrize(
    ("vae", "message"),
    [
        ({"preset": "huge"}, r"vae\.preset = 'huge' is not known; choose from sd15, scenes"),
        ({"preset": "scenes", "fields": {"latent_chanels": 4}}, "did you mean 'latent_channels'"),
        (
            {"preset": "scenes", "fields": {"layers_per_block": "x"}},
            r"vae\.fields\.layers_per_block",
        ),
    ],
)
def test_a_mistaken_architecture_is_told(
    pictures: Path, tmp_path: Path, vae: dict[str, object], message: str
) -> None:
    config = VAETrainConfig.model_validate(_vae_config(pictures).model_dump() | {"vae": vae})
    with pytest.raises(TrainError, match=message):
        build_task(config, tmp_path)


def test_sizes_that_the_autoencoder_cannot_halve_are_refused(
    pictures: Path, tmp_path: Path
) -> None:
    values = _vae_config(pictures).model_dump()
    values["data"]["crop"] = 15
    with pytest.raises(TrainError, match=r"data\.crop = 15 is not a multiple of 2"):
        build_task(VAETrainConfig.model_validate(values), tmp_path)


def test_a_stopped_run_can_be_exported(pictures: Path, tmp_path: Path) -> None:
    config = _vae_config(pictures)
    run(config, tmp_path / "run", Recorder(2))
    export_run(config, tmp_path / "run", tmp_path / "out")
    assert load_vae(tmp_path / "out").config.latent_channels == 4


def test_a_run_goes_on_from_an_exported_autoencoder(pictures: Path, vae_folder: Path) -> None:
    config = _vae_config(pictures).model_copy(update={"init_from": str(vae_folder)})
    weights = build_vae_task(config).vae.state_dict()
    start = load_vae(vae_folder).state_dict()
    assert all(torch.equal(weights[key], value) for key, value in start.items())


def test_a_decoder_learnt_alone_leaves_encoder_and_scaling_factor(
    pictures: Path, vae_folder: Path, tmp_path: Path
) -> None:
    settings = {"init_from": str(vae_folder), "decoder_only": True, "export_dtype": "fp32"}
    result = run(_vae_config(pictures).model_copy(update=settings), tmp_path / "run")
    assert result.model is not None
    before, after = load_vae(vae_folder), load_vae(result.model)
    assert after.config == before.config
    changed = {
        key.split(".")[0]
        for key, value in before.state_dict().items()
        if not torch.equal(value, after.state_dict()[key])
    }
    assert changed == {"decoder", "post_quant_conv"}


def test_a_decoder_alone_needs_an_encoder_to_go_with(pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f'decoder_only = true\n[trainer]\nsteps = 1\n[data]\nfolder = "{pictures}"')
    with pytest.raises(TrainError, match="needs `init_from`"):
        load_toml(VAETrainConfig, path)
