"""Models that are told classes, drawn by name, with a text and without one."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sd_pipeline import (
    Blend,
    Classes,
    Img2Img,
    Parts,
    Pipeline,
    PipelineError,
    Record,
    Txt2Img,
    inspect_model,
    load_model,
    load_pipeline,
    open_model,
    save_model,
    write_single_file,
)
from tests.tiny_model import CLASSES, tiny_class_parts, tiny_text_and_class_parts


def ready(parts: Parts, folder: Path) -> Pipeline:
    save_model(folder, parts, dtype=torch.float32)
    return load_pipeline(folder, device="cpu")


@pytest.fixture(scope="module", params=["unet", "dit"])
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp(request.param) / "model"
    return ready(tiny_class_parts(dit=request.param == "dit"), folder)


@pytest.fixture(scope="module")
def textual(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return ready(tiny_text_and_class_parts(), tmp_path_factory.mktemp("textual") / "model")


def draw(pipeline: Pipeline, prompt: str = "dog", **settings: object) -> np.ndarray:
    request = Txt2Img(prompt=prompt, num_steps=2, seed=5, **settings)
    return np.asarray(next(iter(pipeline.txt2img(request))).image).astype(int)


def test_a_folder_brings_weights_and_names_back(tmp_path: Path) -> None:
    parts = tiny_class_parts()
    save_model(tmp_path / "model", parts, dtype=torch.float32)
    again = load_model(tmp_path / "model")
    assert again.classes == Classes(names=CLASSES)
    assert again.text_encoder is None
    for name, weight in parts.unet.state_dict().items():
        assert torch.equal(weight, again.unet.state_dict()[name]), name
    index = json.loads((tmp_path / "model/model_index.json").read_text())
    assert index["id2label"] == {"0": "dog", "1": "cat, kitten", "2": "tree (oak)"}
    assert index["unet"] == ["diffusers", "UNet2DModel"]
    found = inspect_model(tmp_path / "model")
    assert (found.classes, found.missing, found.task) == (CLASSES, (), "txt2img")


def test_a_class_is_drawn_by_its_name_its_number_and_any_of_its_names(pipeline: Pipeline) -> None:
    cat = draw(pipeline, "cat, kitten")
    for same in ("kitten", "CAT", "1", " cat "):
        assert np.array_equal(draw(pipeline, same), cat), same
    assert not np.array_equal(draw(pipeline, "dog"), cat)
    assert draw(pipeline, "tree (oak)").std() > 1  # brackets mean nothing in a name


def test_guidance_is_against_no_class_or_against_the_negative_one(pipeline: Pipeline) -> None:
    plain = draw(pipeline, guidance_scale=1.0)
    guided = draw(pipeline, guidance_scale=4.0)
    against = draw(pipeline, guidance_scale=4.0, negative_prompt="kitten")
    assert not np.array_equal(plain, guided)
    assert not np.array_equal(guided, against)


def test_classes_are_joined_and_change_by_step(pipeline: Pipeline) -> None:
    dog = draw(pipeline, "dog")
    assert not np.array_equal(draw(pipeline, "dog AND kitten"), dog)
    assert not np.array_equal(draw(pipeline, "[dog:cat:1]"), dog)


def test_the_record_tells_the_class_and_draws_it_again(pipeline: Pipeline) -> None:
    picture = next(iter(pipeline.txt2img(Txt2Img(prompt="1", num_steps=2))))
    record = picture.record
    assert (record.prompt, record.class_name) == ("1", "cat, kitten")
    assert 'Class: "cat, kitten"' in record.parameters()
    assert Record.from_values(json.loads(record.json())) == record
    assert pipeline.resolve(Txt2Img(prompt="dog AND cat")).class_name is None


def test_pictures_do_not_depend_on_their_batch(pipeline: Pipeline) -> None:
    together = list(pipeline.txt2img(Txt2Img(prompt="dog", num_steps=2, count=2, batch_size=2)))
    alone = list(pipeline.txt2img(Txt2Img(prompt="dog", num_steps=2, count=2)))
    for one, other in zip(together, alone, strict=True):
        difference = np.asarray(one.image).astype(int) - np.asarray(other.image)
        assert np.abs(difference).max() <= 1


def test_a_picture_is_drawn_over_as_a_class(pipeline: Pipeline) -> None:
    image = Image.new("RGB", (64, 64), "green")
    over = [
        np.asarray(
            next(
                iter(pipeline.img2img(Img2Img(prompt=name, image=image, strength=0.5, num_steps=4)))
            ).image
        )
        for name in ("dog", "cat")
    ]
    assert not np.array_equal(*over)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompt": "dgo"}, "class 'dgo' is not known; did you mean 'dog'\\? choose of 3"),
        ({"prompt": "3"}, "class '3' is not known; choose of 3, by name or by number from 0: dog"),
        ({"prompt": "dog AND bird"}, "class 'bird' is not known"),
        ({"prompt": "dog", "negative_prompt": "ugly"}, "class 'ugly' is not known"),
        ({"prompt": "dog", "class_name": "cat"}, "the prompt 'dog' and the class 'cat' are two"),
        ({"prompt": "dog", "clip_skip": 1}, "hears no text"),
        ({"prompt": "dog", "blend": Blend(share=0.5, prompt="cat")}, "nothing between two"),
    ],
)
def test_what_is_no_class_is_refused_before_anything_is_drawn(
    pipeline: Pipeline, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(PipelineError, match=words):
        pipeline.txt2img(Txt2Img(**settings))


def test_a_class_beside_a_text_changes_the_picture(textual: Pipeline) -> None:
    none = draw(textual, "a cat on a mat")
    dog = draw(textual, "a cat on a mat", class_name="dog")
    assert not np.array_equal(none, dog)
    assert not np.array_equal(dog, draw(textual, "a dog on a mat", class_name="dog"))
    record = textual.resolve(Txt2Img(prompt="a cat", class_name="0"))
    assert record.class_name == "dog"


def test_a_model_of_text_and_classes_keeps_both_in_one_file(
    textual: Pipeline, tmp_path: Path
) -> None:
    path = tmp_path / "both.safetensors"
    save_model(tmp_path / "model", textual.parts, dtype=torch.float32)
    write_single_file(path, open_model(tmp_path / "model"))
    again = load_pipeline(path, device="cpu")
    assert again.parts.classes == Classes(names=CLASSES)
    settings = {"prompt": "a cat on a mat", "class_name": "dog"}
    assert np.abs(draw(again, **settings) - draw(textual, **settings)).max() <= 1


def test_a_model_without_classes_refuses_one(tiny_model: Path) -> None:
    with pytest.raises(PipelineError, match="told no classes, and 'dog' is asked for"):
        load_pipeline(tiny_model, device="cpu").resolve(Txt2Img(prompt="a", class_name="dog"))


def test_classes_alone_are_no_single_file(tmp_path: Path) -> None:
    save_model(tmp_path / "model", tiny_class_parts())
    with pytest.raises(PipelineError, match="told classes alone has no layout of one file"):
        write_single_file(tmp_path / "a.safetensors", open_model(tmp_path / "model"))


def spoilt(folder: Path, **changes: object) -> Path:
    save_model(folder, tiny_class_parts())
    path = folder / "model_index.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: each for name, each in values.items() if each is not None}))
    return folder


def test_a_folder_without_names_calls_its_classes_by_number(tmp_path: Path) -> None:
    assert load_model(spoilt(tmp_path / "a", id2label=None)).classes == Classes(
        names=("0", "1", "2")
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id2label": {"0": "dog"}}, "names 1 classes, but the network knows 3"),
        ({"id2label": {"0": "a", "1": "b", "7": "c"}}, "must name classes by number"),
        ({"id2label": ["dog", 5]}, "must name classes by number"),
        ({"id2label": {"0": "a", "1": "b", "2": "\x1b[2J"}}, "must name classes by number"),
        ({"text_encoder": ["transformers", "CLIPTextModel"]}, "text_encoder"),
    ],
)
def test_an_index_that_does_not_go_with_its_network_is_refused(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        open_model(spoilt(tmp_path / "a", **changes))


def test_a_network_that_is_told_nothing_is_no_model(tmp_path: Path) -> None:
    parts = tiny_class_parts()
    network = type(parts.unet)(replace(parts.unet.config, num_class_embeds=None))
    save_model(tmp_path / "a", replace(parts, unet=network, classes=None))
    with pytest.raises(PipelineError, match="told nothing"):
        open_model(tmp_path / "a")
