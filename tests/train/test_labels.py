"""Class labels: where they come from, what is told of them, and runs that learn them."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy import Recorder, assert_same_checkpoint

from sd_pipeline import Classes, Txt2Img, load_model, load_pipeline
from sd_train import (
    DataConfig,
    DenoiserTrainConfig,
    PictureFolder,
    TrainError,
    rehearse_run,
    run,
)
from sd_train.build import build_denoiser_task
from sd_train.data import describe
from sd_train.label_table import LabelTable
from sd_train.seeds import generator_for
from sd_train.settings import load_toml, parse_config
from sd_train.tasks.denoiser import in_turn
from tests.tiny_model import tiny_class_parts, tiny_parts

COUNTS = {"cat": 3, "dog": 4, "tree": 2}


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def by_folder(place: Path, prefix: str = "") -> Path:
    number = 0
    for name, count in COUNTS.items():
        for _ in range(count):
            picture(place / f"{prefix}{name}" / f"{number}.png", number)
            number += 1
    return place


def listed(place: Path, *more: object) -> Path:
    lines: list[object] = []
    for number, label in enumerate(["dog", "cat", "dog", *more]):
        picture(place / f"{number}.png", number)
        told = {} if label is None else {"label": label}
        lines.append({"file_name": f"{number}.png", "text": f"picture {number}", **told})
    (place / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return place


def opened(place: Path | str, **settings: object) -> PictureFolder:
    values = {"folder": str(place), "size": 32, "holdout": 1, "labels": "data", **settings}
    return PictureFolder(DataConfig.model_validate(values))


def reasons(folder: PictureFolder) -> dict[str, str]:
    return {Path(item.what).name: item.reason for item in folder.skipped}


@pytest.mark.parametrize("prefix", ["", "2_"])
def test_a_folder_is_a_class_with_kohyas_repeats_or_without(tmp_path: Path, prefix: str) -> None:
    folder = opened(by_folder(tmp_path, prefix), labels="folders")
    assert folder.classes.names == ("cat", "dog", "tree")
    assert folder.labels == [0] * 3 + [1] * 4 + [2] * 2
    assert len(folder.training) == 8 * (2 if prefix else 1)
    assert "classes: 3: cat (3), dog (4), tree (2)" in describe(folder)


def test_without_the_setting_folders_are_no_classes(tmp_path: Path) -> None:
    folder = opened(by_folder(tmp_path), labels="")
    assert folder.classes is None
    assert folder.labels == []
    assert not any("classes" in line for line in describe(folder))


def test_a_picture_in_no_folder_of_a_class_is_named(tmp_path: Path) -> None:
    picture(by_folder(tmp_path) / "lost.png", 99)
    folder = opened(tmp_path, labels="folders")
    assert reasons(folder) == {"lost.png": "it lies in no folder of a class; move it into one"}
    assert folder.report.skipped[0].kind == "no label"


def test_a_listing_has_a_label_column(tmp_path: Path) -> None:
    folder = opened(listed(tmp_path, 7, None, True))
    assert folder.classes.names == ("7", "cat", "dog")
    assert folder.labels == [2, 1, 2, 0]
    assert set(reasons(folder)) == {"4.png", "5.png"}
    assert all("it has no label" in reason for reason in reasons(folder).values())


def test_a_listing_with_labels_wants_no_texts(tmp_path: Path) -> None:
    picture(tmp_path / "a_dog.png", 0)
    picture(tmp_path / "b.png", 1)
    lines = [{"file_name": name, "label": name[0]} for name in ("a_dog.png", "b.png")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    folder = opened(tmp_path)
    assert folder.captions == ["a dog", "b"]
    assert not any(one.remarks for one in folder.report.used)


def test_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    assert opened(listed(tmp_path, 10, 9)).classes.names == ("9", "10", "cat", "dog")


def test_named_classes_keep_their_numbers_and_others_are_left_out(tmp_path: Path) -> None:
    folder = opened(listed(tmp_path, "dgo", 1, 3), classes=["dog", "bird", "Cat"])
    assert folder.labels == [0, 2, 0, 1]
    told = reasons(folder)
    assert "its label 'dgo' is none of data.classes; did you mean 'dog'?" in told["3.png"]
    assert "its label '3' is none of data.classes" in told["5.png"]
    assert "classes: 3: dog (2), bird (1), Cat (1)" in describe(folder)


def test_shards_have_cls_entries(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for number, label in enumerate([b"1", b"0\n", None, b"12", b"\xff"]):
            picture(tmp_path / f"x/{number}.png", number)
            tar.add(tmp_path / f"x/{number}.png", f"{number}.png")
            if label is not None:
                (tmp_path / f"x/{number}.cls").write_bytes(label)
                tar.add(tmp_path / f"x/{number}.cls", f"{number}.cls")
    folder = opened(tmp_path / "0.tar", classes=["dog", "cat"])
    assert folder.labels == [1, 0]
    assert {Path(item.what).name: item.kind for item in folder.skipped} == {
        "0.tar:2.png": "no label",
        "0.tar:3.png": "unknown label",
        "0.tar:4.png": "no label",
    }
    assert {item.kind for item in folder.report.others} == {"label file"}


def test_folders_within_shards_are_classes_too(tmp_path: Path) -> None:
    by_folder(tmp_path / "x")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        tar.add(tmp_path / "x", ".")
    assert opened(tmp_path / "0.tar", labels="folders").classes.names == ("cat", "dog", "tree")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"classes": ["a"]}, "set labels to 'folders' or 'data'"),
        ({"classes": ["a", "A "], "labels": "data"}, "'a' more than once"),
        ({"labels": "folder"}, "labels"),
        ({"label_dropout": 1.5}, "label_dropout"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(TrainError, match=words):
        parse_config(DataConfig, {"folder": "x", **settings}, origin="data")


def test_kohyas_dataset_file_has_no_folder_of_folders(tmp_path: Path) -> None:
    path = tmp_path / "set.toml"
    path.write_text(f"[[datasets]]\nsubsets = [{{ image_dir = '{by_folder(tmp_path / 'x')}' }}]")
    with pytest.raises(TrainError, match="one folder a class"):
        opened(path, labels="folders")


def test_a_share_of_the_labels_is_dropped() -> None:
    table = LabelTable(labels=torch.arange(4).repeat(500), null=4, dropout=0.25)
    kept = torch.zeros(2000, dtype=torch.bool)
    taken = table.take(range(2000), kept, generator_for(0, "x", 0))["class_labels"]
    assert 0.2 < (taken == 4).float().mean() < 0.3
    assert torch.equal(table.take(range(2000), kept)["class_labels"], table.labels)


def test_all_classes_have_their_turn_in_the_samples() -> None:
    assert in_turn(["a", "b"], 5) == ["a", "b", "a", "b", "a"]
    assert in_turn(list("abcdefgh"), 4) == ["a", "c", "e", "g"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return by_folder(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sd_pipeline.folder import save_vae

    place = tmp_path_factory.mktemp("vae")
    save_vae(place, tiny_parts().vae, dtype=torch.float32)
    return place


UNET = {
    "preset": "scenes",
    "fields": {
        "block_out_channels": [8, 16],
        "attention_levels": [True, True],
        "num_heads": [1, 2],
        "norm_num_groups": 4,
    },
}
DIT = {"preset": "scenes", "fields": {"channels": 16, "num_layers": 2, "num_heads": 2}}
TEXT = {
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
}


def config(pictures: Path, vae: Path, **settings: object) -> DenoiserTrainConfig:
    values: dict[str, object] = {
        "trainer": {
            "steps": 4,
            "batch_size": 2,
            "learning_rate": 1e-3,
            "validate_every": 2,
            "save_every": 0,
            "device": "cpu",
            "tensorboard": False,
        },
        "data": {"folder": str(pictures), "size": 32, "holdout": 2, "labels": "folders"},
        "vae": str(vae),
        "unet": UNET,
        "objective": {"prediction": "v"},
        "samples": {"count": 3, "steps": 2},
    }
    return DenoiserTrainConfig.model_validate(values | settings)


@pytest.mark.parametrize("more", [{}, {"arch": "dit", "unet": DIT}], ids=["unet", "dit"])
def test_a_run_told_classes_alone_resumes_and_draws_by_name(
    pictures: Path, vae: Path, tmp_path: Path, more: dict[str, object]
) -> None:
    settings = config(pictures, vae, **more)
    recorder = Recorder()
    straight = run(settings, tmp_path / "straight", recorder)
    run(settings, tmp_path / "resumed", Recorder(2))
    kept = load_toml(DenoiserTrainConfig, tmp_path / "resumed/config.toml")
    assert kept.data.classes == ("cat", "dog", "tree")
    resumed = run(kept, tmp_path / "resumed", resume=True)
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)
    assert straight.model is not None
    pipeline = load_pipeline(straight.model, device="cpu")
    assert pipeline.parts.classes.names == ("cat", "dog", "tree")
    drawn = pipeline.txt2img(Txt2Img(prompt="dog", num_steps=2))
    assert next(iter(drawn)).record.class_name == "dog"


def test_a_run_of_text_and_classes_drops_both_together(pictures: Path, vae: Path) -> None:
    data = {"folder": str(pictures), "size": 32, "holdout": 2, "labels": "folders"}
    data |= {"caption_dropout": 0.5, "label_dropout": 0.0}
    task = build_denoiser_task(config(pictures, vae, text=TEXT, data=data))
    assert task.parts.unet.config.takes_text
    assert task.parts.unet.config.num_class_embeds == 4
    batch = task.source.batch(list(range(7)) * 8, generator_for(0, "data", 0))
    empty = task.source.text.values["token_ids"][-1]
    untold = (batch["token_ids"] == empty).all(1)
    assert torch.equal(untold, batch["class_labels"] == 3)
    assert 0 < untold.sum() < len(untold)
    assert task.loss(batch, generator_for(0, "loss", 0))[0].isfinite()
    assert task.validate().scalars["loss"] > 0


def test_the_validation_loss_is_that_of_the_pictures_own_classes(pictures: Path, vae: Path) -> None:
    task = build_denoiser_task(config(pictures, vae))
    with torch.no_grad():
        for parameter in task.unet.parameters():
            parameter.normal_(std=0.2)
    own = task.validate().scalars["loss"]
    assert own == task.validate().scalars["loss"]
    (batch,) = task.source.held_out()
    assert batch["class_labels"].tolist() == [0, 1]
    none = {**batch, "class_labels": torch.full((2,), 3)}
    assert task.denoising.held_out_loss([none], chunk=2) != pytest.approx(own, rel=1e-6)


def test_a_rehearsal_of_classes_tells_what_a_run_costs(
    pictures: Path, vae: Path, tmp_path: Path
) -> None:
    found = rehearse_run(config(pictures, vae), tmp_path / "run")
    assert found.num_parameters > 0
    assert not (tmp_path / "run/config.toml").exists()


def test_a_run_that_is_told_nothing_or_an_unknown_class_is_refused(
    pictures: Path, vae: Path
) -> None:
    values = config(pictures, vae).model_dump(exclude_none=True)
    values["data"] |= {"labels": "", "classes": ()}
    with pytest.raises(TrainError, match=r"give \[text\], or data.labels"):
        parse_config(DenoiserTrainConfig, values, origin="run.toml")
    unknown = config(pictures, vae, samples={"prompts": ["dgo"]})
    with pytest.raises(TrainError, match=r"samples.prompts: class 'dgo' .* did you mean 'dog'"):
        build_denoiser_task(unknown)


def test_a_model_of_classes_is_evaluated_on_pictures_that_have_them(pictures: Path) -> None:
    from sd_train import SilentReporter
    from sd_train.eval_subjects import held_out_examples, model_subject
    from sd_train.evaluation import EvalConfig, evaluate
    from sd_train.judges import Judges

    parts = replace(tiny_class_parts(), classes=Classes(names=("cat", "dog", "tree")))
    subject = model_subject(
        parts, "tiny", str(pictures), device=torch.device("cpu"), guidance_scale=1.0
    )
    assert subject.prompts == ["cat"] * 3 + ["dog"] * 4 + ["tree"] * 2
    (batch,) = held_out_examples(subject, 3, SilentReporter())
    assert batch["class_labels"].tolist() == [0, 1, 1]
    found = evaluate(subject, EvalConfig(num_bands=2), Judges(), SilentReporter(), lambda *_: None)
    assert found.loss is not None


def test_a_network_of_other_classes_is_not_gone_on_from(
    pictures: Path, vae: Path, tmp_path: Path
) -> None:
    model = run(config(pictures, vae), tmp_path / "run").model
    data = {"folder": str(pictures), "size": 32, "holdout": 2, "labels": "folders"}
    data["classes"] = ["cat", "dog", "tree", "bird"]
    other = config(pictures, vae, init_from=str(model / "unet"), data=data)
    with pytest.raises(TrainError, match=r"num_class_embeds is 4, .* need 5"):
        build_denoiser_task(other)
    assert load_model(model).classes.names == ("cat", "dog", "tree")
