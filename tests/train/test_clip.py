"""Tiny but whole runs of `train-clip`, and what becomes of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.loss import ClipLoss
from PIL import Image
from toy import Recorder, assert_same_checkpoint

from sd_pipeline import load_image_encoder, load_text_encoder
from sd_textenc import CLIPImageConfig, CLIPImageEncoder, TextEncoderError
from sd_train import ClipTrainConfig, TrainError, build_task, load_run, run
from sd_train.seeds import generator_for
from sd_train.tasks.clip import find

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (20, 160, 20)}
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_layers": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    lines = []
    for i in range(18):
        name, colour = list(COLOURS.items())[i % 3]
        pixels = np.clip(random.normal(colour, 20, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"a {name} square"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def settings(pictures: Path, steps: int = 4, **more: object) -> ClipTrainConfig:
    values: dict[str, object] = {
        "trainer": {
            "steps": steps,
            "batch_size": 6,
            "learning_rate": 3e-3,
            "validate_every": 0,
            "save_every": 0,
            "device": "cpu",
            "tensorboard": False,
        },
        "data": {"folder": str(pictures), "size": 16, "holdout": 3},
        "text": {
            "train": True,
            "preset": "scenes",
            "tokenizer": "captions",
            "context_length": 8,
            "fields": {**SMALL, "max_positions": 8},
        },
        "image": {"preset": "scenes", "fields": {**SMALL, "patch_size": 8}},
        "embed_dim": 12,
        "export_dtype": "fp32",
    }
    return ClipTrainConfig.model_validate(values | more)


def test_a_stopped_and_resumed_run_equals_a_straight_one(pictures: Path, tmp_path: Path) -> None:
    straight = run(settings(pictures), tmp_path / "straight")
    run(settings(pictures), tmp_path / "run", Recorder(2))
    resumed = run(load_run(tmp_path / "run"), tmp_path / "run", resume=True)
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)


def test_pictures_and_captions_find_each_other_and_both_encoders_open_again(
    pictures: Path, tmp_path: Path
) -> None:
    config = settings(pictures, steps=80)
    result = run(config, tmp_path)
    last = json.loads((tmp_path / "scalars.jsonl").read_text().splitlines()[-1])
    assert last["validation/image_found_by_text"] == 1.0
    assert last["validation/text_found_by_image"] == 1.0
    assert last["validation/clip_score"] > 50
    assert result.model is not None
    text, image = load_text_encoder(result.model), load_image_encoder(result.model)
    prompts = [f"a {name} square" for name in COLOURS]
    squares = torch.tensor(list(COLOURS.values()))[:, :, None, None] / 127.5 - 1
    pooled = text.encode(prompts).pooled
    assert pooled is not None
    found = find(
        torch.nn.functional.normalize(image(squares.expand(-1, -1, 16, 16)), dim=-1),
        torch.nn.functional.normalize(pooled, dim=-1),
        prompts,
    )
    assert found.by_text == found.by_image == 1.0
    scale = json.loads((result.model / "clip.json").read_text())["logit_scale"]
    assert 1 / 0.07 * 0.5 < scale <= 100.0


def test_tags_are_learnt_in_several_orders(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tagged"
    shutil.copytree(pictures, folder)
    lines = [{"file_name": f"{i}.png", "text": "square, red, small, old, wet"} for i in range(18)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = {"folder": str(folder), "size": 16, "holdout": 3, "shuffle_tags": True, "keep_tags": 1}
    text = {
        "train": True,
        "tokenizer": "captions",
        "context_length": 16,
        "fields": {**SMALL, "max_positions": 16},
    }
    task = build_task(settings(folder, data=data, text=text), tmp_path / "run")
    batch = task.source.batch(range(15), generator_for(0, "data", 0))
    orders = {tuple(ids) for ids in batch["token_ids"].tolist()}
    assert len(orders) > 3
    assert len({ids[1] for ids in orders}) == 1, "the first tag is kept in front"
    assert len({tuple(sorted(ids)) for ids in orders}) == 1, "and no tag is lost"


def test_the_loss_is_that_of_open_clip(pictures: Path, tmp_path: Path) -> None:
    task = build_task(settings(pictures), tmp_path)
    batch = task.source.batch(range(6), generator_for(0, "data", 0))
    loss, told = task.loss(batch, generator_for(0, "loss", 0))
    images, texts = task._vectors(batch["images"], batch["token_ids"])
    assert float(told["logit_scale"]) == pytest.approx(1 / 0.07)
    expected = ClipLoss()(images, texts, torch.tensor(1 / 0.07))
    assert float(loss.detach()) == pytest.approx(float(expected.detach()))
    loss.backward()
    assert all(
        parameter.grad is not None
        for module in task.modules().values()
        for parameter in module.parameters()
    )


def test_a_temperature_is_never_sharper_than_a_hundredfold(pictures: Path, tmp_path: Path) -> None:
    task = build_task(settings(pictures), tmp_path)
    with torch.no_grad():
        task.scale.log.fill_(9.0)
    assert float(task.scale().detach()) == pytest.approx(100.0)


def test_an_equal_caption_of_another_picture_is_as_right() -> None:
    vectors = torch.eye(3)
    assert find(vectors, vectors[[1, 0, 2]], ["a", "a", "b"]).by_text == 1.0
    assert find(vectors, vectors[[1, 0, 2]], ["a", "c", "b"]).by_image == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"image": {"preset": "vit_x"}}, "image.preset = 'vit_x' is not known"),
        ({"image": {"preset": "scenes", "fields": {"patch_size": 7}}}, "multiple of patch_size 7"),
        ({"image": {"preset": "scenes", "fields": {"image_size": 32}}}, "training sees 16 px"),
    ],
)
def test_settings_that_do_not_fit_are_told(
    pictures: Path, tmp_path: Path, more: dict[str, object], words: str
) -> None:
    with pytest.raises(TrainError, match=words):
        build_task(settings(pictures, **more), tmp_path)


def test_pictures_of_another_size_and_other_configs_are_refused() -> None:
    config = CLIPImageConfig(**SMALL, image_size=16, patch_size=8, projection_dim=4)
    with pytest.raises(TextEncoderError, match="resize them to 16 x 16"):
        CLIPImageEncoder(config)(torch.zeros(1, 3, 16, 24))
    assert CLIPImageConfig.from_json(config.to_json()) == config
    with pytest.raises(TextEncoderError, match="'UNet'"):
        CLIPImageConfig.from_json({"_class_name": "UNet"})
