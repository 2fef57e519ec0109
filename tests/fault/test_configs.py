"""A config that states nonsense is refused in one line, soon, and builds nothing."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sd_checkpoint import CheckpointError
from sd_pipeline import PipelineError, build, open_model, save_model, write_single_file
from sd_pipeline.config_types import checked
from sd_sampler import SamplerError
from sd_textenc import TextEncoderError
from sd_unet import UNetConfigError, backbone_config, dit_scenes
from sd_vae import VAEError, config_from_diffusers, scenes, with_codebook
from tests.fault.mutations import NUMBERS
from tests.tiny_model import tiny_class_parts

FILES = [
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "tokenizer/vocab.json",
]
NONSENSE = [
    None, True, -1, 0, 7, 10**9, 10**40, 0.5, -1e300, "", "x", "\x1b[2J\n", [], [7], [10**9] * 4,
    ["x"], [[1]], [1] * 4000, {}, {"a": [None]},
]  # fmt: skip
OURS = (
    CheckpointError,
    PipelineError,
    SamplerError,
    TextEncoderError,
    UNetConfigError,
    VAEError,
)


def spoilt(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key in config:
        yield {name: value for name, value in config.items() if name != key}
        for value in NONSENSE:
            yield {**config, key: value}


def opens(path: Path) -> bool:
    """Build what a model's files state, or be refused in one of our errors of one line."""
    try:
        build(open_model(path))
    except OURS as error:
        message = str(error)
    else:
        return True
    assert message.isprintable(), message
    assert len(message) < 2000
    return False


def some(configs: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    return random.Random(number).sample(configs, min(number // 10, len(configs)))


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", FILES)
def test_a_folder_with_one_spoilt_setting_opens_or_is_refused(
    tiny_model: Path, tmp_path: Path, name: str, number: int
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    file = folder / name
    results = []
    for config in some(list(spoilt(json.loads(file.read_text()))), number):
        file.write_text(json.dumps(config))
        results.append(opens(folder))
    assert not all(results)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("dit", [False, True])
@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json"])
def test_a_model_of_classes_with_one_spoilt_setting_opens_or_is_refused(
    tmp_path: Path, name: str, dit: bool, number: int
) -> None:
    save_model(tmp_path / "model", tiny_class_parts(dit=dit))
    file = tmp_path / "model" / name
    results = []
    for config in some(list(spoilt(json.loads(file.read_text()))), number):
        file.write_text(json.dumps(config))
        results.append(opens(tmp_path / "model"))
    assert not all(results)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("part", ["", "unet", "vae", "scheduler", "texts", "tokenizers"])
def test_a_file_with_one_spoilt_setting_opens_or_is_refused(
    tiny_model: Path, tmp_path: Path, part: str, number: int
) -> None:
    path = tmp_path / "model.safetensors"
    write_single_file(path, open_model(tiny_model))
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, tensors = json.loads(data[8 : 8 + size]), data[8 + size :]
    whole = json.loads(header["__metadata__"]["sd_pipeline.configs"])
    results = []
    for config in some(list(spoilt(inner(whole, part))), number):
        header["__metadata__"]["sd_pipeline.configs"] = json.dumps(around(whole, part, config))
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path.write_bytes(len(text).to_bytes(8, "little") + text + tensors)
        results.append(opens(path))
    assert not all(results)


def inner(whole: dict[str, Any], part: str) -> dict[str, Any]:
    if part == "texts":
        return whole["texts"][0]
    if part == "tokenizers":
        return whole["tokenizers"]["0"]
    return whole[part] if part else whole


def around(whole: dict[str, Any], part: str, config: dict[str, Any]) -> dict[str, Any]:
    if part == "texts":
        return {**whole, "texts": [config]}
    if part == "tokenizers":
        return {**whole, "tokenizers": {"0": config}}
    return {**whole, part: config} if part else config


def test_the_refusal_names_the_file_the_value_and_the_limit() -> None:
    with pytest.raises(CheckpointError) as caught:
        checked({"layers_per_block": 10**9}, what="unet/config.json")
    assert str(caught.value) == (
        "unet/config.json: layers_per_block is 1000000000; it must be a whole number from 1 to 16,"
        " or a list of up to 16 such"
    )


def test_a_spoilt_config_of_a_transformer_is_read_or_refused_in_one_line() -> None:
    messages = []
    for config in spoilt(dit_scenes().to_diffusers()):
        try:
            backbone_config(checked(config, what="unet/config.json"))
        except OURS as error:
            messages.append(str(error))
    assert len(messages) > 150
    assert all(message.isprintable() and len(message) < 2000 for message in messages)


def test_a_spoilt_config_of_a_codebook_is_read_or_refused_in_one_line() -> None:
    messages = []
    for config in spoilt(with_codebook(scenes()).to_diffusers()):
        try:
            config_from_diffusers(checked(config, what="vae/config.json"))
        except OURS as error:
            messages.append(str(error))
    assert len(messages) > 200
    assert all(message.isprintable() and len(message) < 2000 for message in messages)
