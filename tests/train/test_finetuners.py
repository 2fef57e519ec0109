"""Tiny but whole runs of the four finetuners."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from finetuning import (
    KINDS,
    outputs,
    settings,
    write_clip,
)
from PIL import Image
from toy import Recorder, assert_same_checkpoint

from sd_adapters import load_embedding, load_loras
from sd_checkpoint import Checkpoint
from sd_pipeline import Txt2Img, load_model, load_pipeline
from sd_pipeline.adapter_places import adapter_aliases, adapter_models
from sd_train import TrainError, build_task, load_run, run, train
from sd_train.cache import module_fingerprint
from sd_train.prior import class_caption
from sd_train.settings import parse_config

METHODS = tuple(KINDS)


def scalars(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "scalars.jsonl").open()]


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("lora", {"lora": {"targets": "all", "text": True, "dropout": 0.3}}),
        ("lora", {"lora": {"kind": "lokr", "dora": True, "rank": 2}, "data_flip": True}),
        ("textual_inversion", {}),
        ("hypernetwork", {"hypernetwork": {"dropout_structure": (0, 0.3, 0)}}),
        ("dreambooth", {"train_text": True, "gradient_checkpointing": True}),
        ("dreambooth", {"lora": {"rank": 2}}),
    ],
)
def test_a_stopped_and_resumed_run_equals_a_straight_one(
    tiny_model: Path, cats: Path, tmp_path: Path, method: str, more: dict[str, Any]
) -> None:
    more = dict(more)
    if more.pop("data_flip", False):
        more["data"] = {"folder": str(cats), "size": 64, "flip": True}
    config = settings(method, tiny_model, cats, **more)
    straight = run(config, tmp_path / "straight")
    run(config, tmp_path / "resumed", Recorder(2))
    resumed = run(load_run(tmp_path / "resumed"), tmp_path / "resumed", resume=True)
    assert resumed.status == "finished"
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)


@pytest.mark.parametrize(
    ("method", "rate"),
    [("lora", 1e-2), ("textual_inversion", 1e-2), ("hypernetwork", 1e-2), ("dreambooth", 1e-3)],
)
def test_each_method_lowers_the_loss_and_says_what_it_was_without(
    tiny_model: Path, cats: Path, tmp_path: Path, method: str, rate: float
) -> None:
    trainer = {"steps": 30, "learning_rate": rate}
    more: dict[str, Any] = {}
    if method == "textual_inversion":
        # A random network hardly heeds its text, and few examples would show chance alone.
        trainer, more = {**trainer, "steps": 80, "batch_size": 24}, {"templates": "captions"}
    run(settings(method, tiny_model, cats, trainer, **more), tmp_path)
    found = scalars(tmp_path)[-1]
    assert found["validation/seen_loss"] < found["validation/seen_loss_without"]


@pytest.mark.parametrize("method", METHODS)
def test_only_what_should_learn_changes(
    tiny_model: Path, cats: Path, tmp_path: Path, method: str
) -> None:
    task = build_task(settings(method, tiny_model, cats), tmp_path)
    networks = {
        "unet": task.parts.unet,
        "vae": task.parts.vae,
        "text_encoder": task.parts.text_encoder,
    }
    before = {name: module_fingerprint(module) for name, module in networks.items()}
    new = {name: module_fingerprint(module) for name, module in task.modules().items()}
    train(task, task.config.trainer, tmp_path)
    changed = {name for name in networks if module_fingerprint(networks[name]) != before[name]}
    assert changed == ({"unet"} if method == "dreambooth" else set())
    assert all(module_fingerprint(m) != new[name] for name, m in task.modules().items())
    own = {id(p) for module in task.modules().values() for p in module.parameters()}
    given = {id(p) for m in networks.values() for p in m.parameters() if p.grad is not None}
    assert given <= own


def test_held_out_pictures_are_measured_and_prompts_drawn(
    tiny_model: Path, cats: Path, tmp_path: Path
) -> None:
    data = {"folder": str(cats), "size": 64, "holdout": 1}
    samples = {"count": 2, "steps": 1}
    config = settings("lora", tiny_model, cats, data=data, samples=samples)
    run(config, tmp_path)
    found = scalars(tmp_path)[-1]
    assert {"validation/loss", "validation/loss_without"} <= found.keys()
    with Image.open(tmp_path / "samples/step-00000004-samples.png") as shown:
        assert shown.size == (2 * 64, 64)
    told = load_run(tmp_path)
    assert told.samples.prompts == ("a sks cat", "a sks cat under a tree")


def test_where_no_picture_is_held_out_it_is_said_that_no_loss_says_when_to_stop(
    tiny_model: Path, cats: Path, tmp_path: Path
) -> None:
    for holdout in (0, 1):
        told = Recorder()
        data = {"folder": str(cats), "size": 64, "holdout": holdout}
        build_task(settings("lora", tiny_model, cats, data=data), tmp_path / str(holdout), told)
        assert any("data.holdout = 1" in line for line in told.messages) == (holdout == 0)


@pytest.mark.parametrize("method", METHODS)
def test_a_clip_says_how_like_the_subject_the_samples_are_and_were_without(
    tiny_model: Path, cats: Path, tmp_path: Path, method: str
) -> None:
    clip = write_clip(tmp_path / "clip")
    more = {"clip": str(clip), "samples": {"count": 2, "steps": 1}}
    trainer = {"best_by": "subject_likeness", "best_is": "highest", "learning_rate": 0.1}
    result = run(settings(method, tiny_model, cats, trainer, **more), tmp_path / "run")
    found = scalars(tmp_path / "run")[-1]
    for name in ("subject_likeness", "prompt_score"):
        now, before = found[f"validation/{name}"], found[f"validation/{name}_without"]
        assert now != before
        assert abs(now) <= 100
        assert abs(before) <= 100
    assert result.best is not None


def test_a_clip_that_has_nothing_to_see_is_told(tiny_model: Path, cats: Path) -> None:
    values = settings("lora", tiny_model, cats).model_dump(exclude_none=True) | {"clip": "clip"}
    with pytest.raises(TrainError, match=r"set samples\.count to 1 or more"):
        parse_config(KINDS["lora"], values, origin="run.toml")


def test_dropout_is_off_in_validation(tiny_model: Path, cats: Path, tmp_path: Path) -> None:
    config = settings("lora", tiny_model, cats, {"learning_rate": 0.1}, lora={"dropout": 0.5})
    task = build_task(config, tmp_path)
    train(task, config.trainer, tmp_path)
    (lora,) = task.modules().values()
    lora.eval()
    assert task.validate().scalars == task.validate().scalars
    lora.train()
    assert task.validate().scalars != task.validate().scalars


def test_the_new_word_begins_as_the_initial_one_and_stands_in_its_place(
    tiny_model: Path, cats: Path, tmp_path: Path
) -> None:
    more = {"templates": "captions", "num_vectors": 1, "placeholder": "<it>", "initial": "cat"}
    task = build_task(settings("textual_inversion", tiny_model, cats, **more), tmp_path)
    assert torch.equal(outputs(task.parts, "a <it>"), outputs(task.parts, "a cat"))
    tokenizer = task.parts.text_encoder.tokenizer
    shown = task.source.fixed([0, 1])["token_ids"]
    assert torch.equal(shown, tokenizer(["a <it> on a mat", "a black <it> under a tree"]))
    assert task.config.name == "it"


def test_a_new_word_can_begin_as_a_description_and_keeps_the_captions_places(
    tiny_model: Path, cats: Path, tmp_path: Path
) -> None:
    more = {"templates": "captions", "num_vectors": 0, "placeholder": "<it>", "noun": "cat"}
    more["initial"] = "black cat under a tree"
    task = build_task(settings("textual_inversion", tiny_model, cats, **more), tmp_path)
    same = outputs(task.parts, "a black cat under a tree")
    assert torch.equal(outputs(task.parts, "a <it>"), same)
    shown = task.source.fixed([0])["token_ids"]
    assert torch.equal(shown, task.parts.text_encoder.tokenizer(["a <it> on a mat"]))


def test_vectors_beyond_the_initial_word_begin_as_it_or_as_the_end_of_a_prompt(
    tiny_model: Path, cats: Path, tmp_path: Path
) -> None:
    (tower,) = load_model(tiny_model).towers
    (cat,) = tower.tokenizer.tokenize("cat")
    rows = tower.body.embeddings.token_embedding.weight
    for filler, ids in (
        ("initial", [cat] * 3),
        ("end", [tower.tokenizer.eos_token_id] * 2 + [cat]),
    ):
        more = {"num_vectors": 3, "filler": filler, "initial": "cat"}
        task = build_task(settings("textual_inversion", tiny_model, cats, **more), tmp_path)
        (inversion,) = task.modules().values()
        assert torch.equal(inversion.vectors, rows[ids])


def test_a_dreambooth_model_loads_back_whole_with_its_contact_sheet(
    tiny_model: Path, cats: Path, tmp_path: Path
) -> None:
    config = settings("dreambooth", tiny_model, cats, contact_sheet=2)
    task = build_task(config, tmp_path)
    result = train(task, config.trainer, tmp_path)
    fresh = load_model(result.model)
    prompt = "a sks cat"
    torch.testing.assert_close(outputs(fresh, prompt), outputs(task.parts, prompt))
    with Image.open(tmp_path / "contact-sheet.png") as sheet:
        assert sheet.width > 2 * 64
        assert sheet.height > 3 * 64


def test_class_pictures_are_drawn_once_and_only_those_that_are_missing(
    tiny_model: Path, cats: Path, tmp_path: Path
) -> None:
    config = settings("dreambooth", tiny_model, cats, num_class_images=3)
    first, second = Recorder(), Recorder()
    task = build_task(config, tmp_path, first)
    assert task.config.class_prompt == "a cat"
    files = sorted((tmp_path / "class").glob("*.png"))
    pixels = [path.read_bytes() for path in files]
    build_task(config, tmp_path, second)
    assert any("drawing" in line for line in first.messages)
    assert not any("drawing" in line for line in second.messages)
    files[1].unlink()
    build_task(config, tmp_path)
    assert [path.read_bytes() for path in files] == pixels
    build_task(config.model_copy(update={"class_prompt": "a tree"}), tmp_path)
    assert all(path.read_bytes() != old for path, old in zip(files, pixels, strict=True))


def test_class_pictures_are_put_in_places_that_the_model_knows(
    tiny_model: Path, cats: Path, tmp_path: Path
) -> None:
    places = {"class_prompt": "a cat", "class_places": "{on a mat|under a tree|on Mars}"}
    config = settings("lora", tiny_model, cats, prior_weight=1, num_class_images=48, **places)
    encoder = load_model(tiny_model).text
    captions = [class_caption(config, encoder, seed) for seed in range(48)]
    assert set(captions) == {"a cat on a mat", "a cat under a tree", "a cat"}
    assert [len(set(captions[start : start + 4])) for start in range(0, 48, 4)] == [1] * 12
    build_task(config.model_copy(update={"num_class_images": 5}), tmp_path)
    # Of those that an earlier run drew all are learnt, each by its own words.
    task = build_task(config.model_copy(update={"num_class_images": 2}), tmp_path)
    drawn = load_pipeline(tiny_model, device="cpu").txt2img(Txt2Img(prompt=captions[4], seed=4))
    with Image.open(tmp_path / "class/0004.png") as image:
        assert image.tobytes() == next(iter(drawn)).image.tobytes()
    told = task.source.prior.batch([0, 4], torch.Generator())["hidden_states"]
    states = encoder.encode([captions[0], captions[4]]).hidden_states
    torch.testing.assert_close(told.float(), states, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["dreambooth", "lora", "hypernetwork"])
def test_the_class_is_learnt_beside_the_subject_and_weighed(
    tiny_model: Path, cats: Path, tmp_path: Path, method: str
) -> None:
    losses, more = {}, {"num_class_images": 2}
    for weight in (0.5, 2.0):
        config = settings(method, tiny_model, cats, **more, prior_weight=weight)
        task = build_task(config, tmp_path)
        batch = task.source.batch([0, 1], torch.Generator().manual_seed(0))
        assert len(batch["mean"]) == 4
        loss, told = task.loss(batch, torch.Generator().manual_seed(1))
        losses[weight] = float(loss.detach())
        own, prior = float(told["mse"]), float(told["prior_mse"])
        assert losses[weight] == pytest.approx(own + weight * prior, rel=1e-5)
    without = build_task(settings(method, tiny_model, cats, prior_weight=0), tmp_path / "0")
    assert len(without.source.batch([0, 1], torch.Generator())["mean"]) == 2
    assert not (tmp_path / "0/class").exists()


@pytest.mark.parametrize("method", METHODS)
def test_sdxl_is_finetuned_with_both_text_encoders_and_its_sizes(
    sdxl: Path, cats: Path, tmp_path: Path, method: str
) -> None:
    more: dict[str, Any] = {"lora": {"lora": {"text": True}}}.get(method, {})
    config = settings(method, sdxl, cats, **more)
    task = build_task(config, tmp_path)
    # Pictures of 72 x 64: height and width, the square's top and left, its height and width.
    assert task.subject.fixed([0])["sizes"].tolist() == [[64, 72, 0, 4, 64, 64]]
    result = train(task, config.trainer, tmp_path)
    if method == "textual_inversion":
        assert load_embedding(result.model / "my-cat.safetensors").widths == (32, 32)
    if method == "lora":
        fresh = load_model(sdxl)
        path = result.model / "cat.safetensors"
        assert any("input_blocks" in key for key in Checkpoint.open(path))
        found = load_loras(path, adapter_models(fresh), adapter_aliases(fresh))
        assert found.keys() == {"lora_unet", "lora_te1_text_model", "lora_te2_text_model"}


@pytest.mark.parametrize("text", [False, True], ids=["cached", "live"])
def test_a_dropped_caption_is_zeros_where_the_model_has_them_for_an_empty_prompt(
    sdxl: Path, tiny_model: Path, cats: Path, tmp_path: Path, text: bool
) -> None:
    told: list[Any] = []
    for model in (sdxl, tiny_model):
        data = {"folder": str(cats), "size": 64, "caption_dropout": 1.0}
        config = settings("lora", model, cats, lora={"text": text}, data=data)
        task = build_task(config, tmp_path / model.name)
        task.denoising.parts.unet.register_forward_pre_hook(lambda _, args: told.append(args))
        task.loss(task.source.batch([0, 1], torch.Generator()), torch.Generator())
        ((_, _, states, added),) = told
        zeros = task.denoising.parts.zeros_for_empty
        assert (not states.any()) == zeros
        assert added is None or not added.pooled.any()
        told.clear()
        task.denoising.held_out_loss([task.subject.fixed([0])], chunk=1)
        assert told[0][2].any(), "captions that are kept are told"
        told.clear()


def test_text_encoders_learn_at_a_rate_of_their_own(
    tiny_model: Path, cats: Path, tmp_path: Path
) -> None:
    lora = {"text": True, "text_learning_rate": 2.5e-4}
    task = build_task(settings("lora", tiny_model, cats, lora=lora), tmp_path)
    assert list(task.modules()) == ["unet", "text_encoder"]
    assert task.config.trainer.learning_rate_scales == {"text_encoder": 0.25}
