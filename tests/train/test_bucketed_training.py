"""Runs in which pictures keep their shapes: buckets from the pictures to the losses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finetuning import settings, tiny_sdxl
from PIL import Image
from pydantic import ValidationError
from toy import Recorder, assert_same_checkpoint

from sd_pipeline import save_vae
from sd_train import (
    ClipTrainConfig,
    DataConfig,
    DenoiserTrainConfig,
    PictureFolder,
    SilentReporter,
    TrainError,
    VAETrainConfig,
    build_task,
    load_run,
    run,
)
from sd_train.eval_subjects import run_subject
from sd_train.evaluation import EvalConfig, evaluate
from sd_train.finetune_base import told_sizes
from sd_train.images import to_float
from sd_train.judges import Judges
from sd_train.seeds import generator_for
from tests.tiny_model import tiny_parts

SHAPES = [(70, 70), (140, 40), (130, 36), (44, 90), (40, 130), (64, 64), (128, 32), (100, 60)]
# Of these the buckets of 64 x 64 pixels, in steps of 16.
SIZES = [(64, 64), (112, 32), (112, 32), (48, 80), (32, 112), (64, 64), (128, 32), (80, 48)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i, (width, height) in enumerate(SHAPES):
        pixels = random.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        image.save(folder / f"{i} a cat.png")
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    save_vae(folder, tiny_parts().vae, dtype=torch.float32)
    return folder


def data(pictures: Path, **more: Any) -> dict[str, Any]:
    shaped = {"buckets": True, "bucket_step": 16, "size": 64}
    return {"folder": str(pictures), "holdout": 2, **shaped, **more}


def denoiser(pictures: Path, vae: Path, steps: int = 4, **more: Any) -> DenoiserTrainConfig:
    small = {"hidden_size": 16, "intermediate_size": 32, "num_layers": 1, "num_heads": 2}
    return DenoiserTrainConfig.model_validate(
        {
            "trainer": {
                "steps": steps,
                "batch_size": 2,
                "learning_rate": 1e-3,
                "validate_every": 3,
                "save_every": 0,
                "device": "cpu",
                "tensorboard": False,
            },
            "data": data(pictures, **more.pop("data", {})),
            "vae": str(vae),
            "unet": {
                "preset": "scenes",
                "fields": {
                    "block_out_channels": [8, 16],
                    "attention_levels": [False, True],
                    "num_heads": 2,
                    "norm_num_groups": 4,
                },
            },
            "text": {
                "train": True,
                "preset": "scenes",
                "tokenizer": "captions",
                "context_length": 8,
                "fields": {**small, "max_positions": 8},
            },
            "samples": {"count": 0},
            **more,
        }
    )


@pytest.mark.parametrize("in_memory", [True, False])
def test_pictures_keep_their_shapes_and_squares_can_be_had(pictures: Path, in_memory: bool) -> None:
    folder = PictureFolder(DataConfig(**data(pictures, in_memory=in_memory, holdout=0)))
    assert folder.sizes == SIZES
    for place, (width, height) in enumerate(SIZES):
        assert folder.pictures([place]).shape == (1, 3, height, width)
    assert folder.squares([0, 1, 3]).shape == (3, 3, 64, 64)
    square = PictureFolder(DataConfig(folder=str(pictures), size=64, holdout=0))
    assert torch.equal(folder.squares([0, 1, 3]), square.pictures([0, 1, 3]))
    flipped = PictureFolder(DataConfig(**data(pictures, flip=True, in_memory=in_memory)))
    seen = {
        bytes(flipped.crops([1], generator_for(0, "x", n)).contiguous().flatten().numpy())
        for n in range(9)
    }
    whole = folder.pictures([1])
    assert seen == {bytes(each.contiguous().flatten().numpy()) for each in (whole, whole.flip(3))}


@pytest.mark.parametrize("cached", [True, False])
def test_a_stopped_and_resumed_run_equals_a_straight_one(
    pictures: Path, vae: Path, tmp_path: Path, cached: bool
) -> None:
    config = denoiser(
        pictures, vae, 8, cache_latents=cached, data={"flip": not cached}, sample_posterior=True
    )
    straight = run(config, tmp_path / "straight")
    run(config, tmp_path / "resumed", Recorder(5))
    resumed = run(load_run(tmp_path / "resumed"), tmp_path / "resumed", resume=True)
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)
    last = json.loads((tmp_path / "straight/scalars.jsonl").read_text().splitlines()[-1])
    assert last["validation/loss"] > 0
    # The same examples are evaluated, those of the best checkpoint too.
    for best in (False, True):
        with run_subject(tmp_path / "straight", SilentReporter(), best=best) as subject:
            found = evaluate(
                subject, EvalConfig(num_bands=1), Judges(), SilentReporter(), lambda *_: None
            )
        assert str(tmp_path / "straight/checkpoints") in found.subject
        assert len(found.bands) == 1
        if not best:
            assert found.loss == pytest.approx(last["validation/loss"], rel=1e-2)


def test_cached_latents_are_those_of_their_pictures(
    pictures: Path, vae: Path, tmp_path: Path
) -> None:
    task = build_task(denoiser(pictures, vae), tmp_path)
    source = task.source
    training = [source.folder.sizes[place] for place in source.folder.training]
    assert sorted(index for group in source.groups for index in group) == list(range(6))
    for group in source.groups:
        assert len({training[i] for i in group}) == 1
        batch = source.batch(group, generator_for(0, "data", 0))
        images = source.folder.pictures([source.folder.training[i] for i in group])
        fresh = task.parts.vae.encode(to_float(images)).mean
        torch.testing.assert_close(batch["mean"].float(), fresh, rtol=1e-3, atol=1e-3)
    kept = len(list(tmp_path.glob("**/latents-*.safetensors")))
    assert kept == len(set(source.folder.sizes))
    for other in (data(pictures, buckets=False), {"bucket_step": 32}):
        build_task(denoiser(pictures, vae, data=other), tmp_path)
        before, kept = kept, len(list(tmp_path.glob("**/latents-*.safetensors")))
        assert kept > before


def test_masks_have_the_shapes_of_their_pictures(pictures: Path, tmp_path: Path) -> None:
    for path in sorted(pictures.glob("*.png"))[:3]:
        image = Image.open(path)
        image.save(tmp_path / path.name)
        mask = Image.new("L", image.size)
        mask.paste(255, (0, 0, image.width // 2, image.height))
        mask.save(tmp_path / f"{path.stem}.mask.png")
    folder = PictureFolder(DataConfig(**data(tmp_path, holdout=0)))
    mask = folder.masked([1])["mask"]
    assert mask.shape == (1, 1, 32, 112)
    assert mask.mean() == pytest.approx(0.5, abs=0.02)


def test_sdxl_is_told_the_true_sizes_and_corners(pictures: Path, tmp_path: Path) -> None:
    folder = PictureFolder(DataConfig(**data(pictures, holdout=0)))
    told = told_sizes(folder).tolist()
    # Height and width, the window's top and left, its height and width.
    assert told[0] == [70, 70, 0, 0, 64, 64]
    # 130 x 36 becomes 116 x 32, of which 112 columns stay; 100 x 60 becomes 80 x 48.
    assert told[2] == [36, 130, 0, 2, 32, 112]
    assert told[7] == [60, 100, 0, 0, 48, 80]
    sdxl = tiny_sdxl(tmp_path / "sdxl")
    config = settings("lora", sdxl, pictures, data=data(pictures, holdout=0))
    task = build_task(config, tmp_path / "task")
    (group,) = [each for each in task.source.groups if 2 in each]
    batch = task.source.batch(group, generator_for(0, "data", 0))
    assert batch["sizes"][group.index(2)].tolist() == told[2]
    assert batch["mean"].shape[-2:] == (4, 14)
    assert run(config, tmp_path / "run").status == "finished"


def test_sides_that_the_networks_cannot_halve_are_told(
    pictures: Path, vae: Path, tmp_path: Path
) -> None:
    config = denoiser(pictures, vae, data={"bucket_step": 8})
    with pytest.raises(TrainError, match=r"multiples of 16; set data\.bucket_step = 16"):
        build_task(config, tmp_path)


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        (DataConfig, {"crop": 32}, "leave crop at 0"),
        (VAETrainConfig, {}, "an autoencoder learns squares"),
        (ClipTrainConfig, {}, "a CLIP learns squares"),
    ],
)
def test_what_learns_squares_refuses_buckets(
    pictures: Path, kind: Any, more: dict[str, Any], words: str
) -> None:
    values = {**data(pictures), **more}
    if kind is not DataConfig:
        values = {"trainer": {"steps": 1}, "data": values}
    if kind is ClipTrainConfig:
        values["text"] = {"train": True}
    with pytest.raises(ValidationError, match=words):
        kind.model_validate(values)


def test_buckets_leave_no_room_for_pictures_of_the_class(pictures: Path, vae: Path) -> None:
    with pytest.raises(ValidationError, match=r"set prior_weight = 0 or leave data.buckets out"):
        settings("dreambooth", vae, pictures, data=data(pictures))
    assert settings("dreambooth", vae, pictures, data=data(pictures), prior_weight=0).data.buckets
