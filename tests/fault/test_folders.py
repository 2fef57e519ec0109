"""A part's weights are found in every layout of the field, and nothing outside its folder is."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from sd_checkpoint import (
    CheckpointError,
    load_config,
    load_json,
    open_weights,
    save_json,
    save_safetensors,
)
from tests.fault.mutations import NUMBERS, mutated, refused

STEM = "diffusion_pytorch_model"
TENSORS = {"a": torch.zeros(2), "b": torch.ones(3), "c": torch.ones(1)}


def write(path: Path, *keys: str) -> None:
    tensors = {key: TENSORS[key] for key in keys or TENSORS}
    if path.suffix == ".safetensors":
        save_safetensors(path, tensors)
    else:
        torch.save(tensors, path)


def shards(folder: Path, index: str, suffix: str = ".safetensors", **changes: str) -> Path:
    """Write two shards and their index, which `changes` makes wrong."""
    first, second = (f"{STEM}-0000{i}-of-00002{suffix}" for i in (1, 2))
    write(folder / first, "a", "c")
    write(folder / second, "b")
    weight_map = {"a": first, "b": second, "c": first, **changes}
    save_json(folder / index, {"metadata": {"total_size": 24}, "weight_map": weight_map})
    return folder / index


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        (f"{STEM}.safetensors", None),
        (f"{STEM}.bin", None),
        (f"{STEM}.fp16.safetensors", "fp16"),
        (f"{STEM}.fp16.safetensors", None),
        (f"{STEM}.non_ema.bin", "non_ema"),
        (f"{STEM}.non_ema.bin", None),
    ],
)
def test_one_file_is_found_by_its_variant_or_as_the_only_one(
    tmp_path: Path, name: str, variant: str | None
) -> None:
    write(tmp_path / name)
    assert open_weights(tmp_path, STEM, variant).keys() == TENSORS.keys()


@pytest.mark.parametrize(
    ("index", "suffix", "variant"),
    [
        (f"{STEM}.safetensors.index.json", ".safetensors", None),
        (f"{STEM}.fp16.safetensors.index.json", ".safetensors", "fp16"),
        (f"{STEM}.safetensors.index.fp16.json", ".safetensors", "fp16"),
        (f"{STEM}.safetensors.index.fp16.json", ".safetensors", None),
        (f"{STEM}.bin.index.json", ".bin", None),
    ],
)
def test_shards_are_found_in_every_spelling(
    tmp_path: Path, index: str, suffix: str, variant: str | None
) -> None:
    shards(tmp_path, index, suffix)
    found = open_weights(tmp_path, STEM, variant)
    assert list(found) == ["a", "b", "c"]
    assert all(torch.equal(found[key], tensor) for key, tensor in TENSORS.items())
    assert found.shapes() == {"a": (2,), "b": (3,), "c": (1,)}


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "model.bin"])
def test_the_weights_of_transformers_have_an_older_name(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    assert open_weights(tmp_path, "model").path.name == name


def test_safetensors_go_before_pickles_and_no_variant_before_one(tmp_path: Path) -> None:
    for name in (f"{STEM}.bin", f"{STEM}.fp16.safetensors", f"{STEM}.safetensors"):
        write(tmp_path / name)
    assert open_weights(tmp_path, STEM).path.name == f"{STEM}.safetensors"


def test_an_absent_variant_is_an_error_that_lists_those_there_are(tmp_path: Path) -> None:
    write(tmp_path / f"{STEM}.fp16.safetensors")
    write(tmp_path / f"{STEM}.bin")
    with pytest.raises(CheckpointError, match=r"no .*bf16\.safetensors .*there: none, fp16$"):
        open_weights(tmp_path, STEM, "bf16")


def test_of_several_variants_one_must_be_chosen(tmp_path: Path) -> None:
    write(tmp_path / f"{STEM}.fp16.safetensors")
    write(tmp_path / f"{STEM}.non_ema.safetensors")
    with pytest.raises(CheckpointError, match=r"there: fp16, non_ema$"):
        open_weights(tmp_path, STEM)


def test_a_folder_without_weights_or_none_at_all_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        open_weights(tmp_path, "model")
    with pytest.raises(CheckpointError, match="absent is no folder"):
        open_weights(tmp_path / "absent", "model")


def test_a_snapshot_of_a_hub_cache_is_read_through_its_links(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--name" / "snapshots" / "0f" / "unet"
    blobs = tmp_path / "models--org--name" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    shards(snapshot, f"{STEM}.safetensors.index.json")
    for number, path in enumerate(sorted(snapshot.iterdir())):
        path.rename(blobs / f"{number:064}")
        path.symlink_to(os.path.relpath(blobs / f"{number:064}", snapshot))
    assert open_weights(snapshot, STEM).keys() == TENSORS.keys()


@pytest.mark.parametrize("name", ["../out", "/out", "sub/../../out", "sub/in", "link", "..\\out"])
def test_an_index_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    write(tmp_path / "out.safetensors", "b")
    (folder / "link.safetensors").symlink_to(tmp_path / "out.safetensors")
    name = name.replace("/out", f"{tmp_path}/out") if name == "/out" else name
    shards(folder, f"{STEM}.safetensors.index.json", b=f"{name}.safetensors")
    with pytest.raises(CheckpointError, match="outside its folder") as caught:
        open_weights(folder, STEM)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"b": f"{STEM}.bin"}, r"no \.safetensors file"),
        ({"b": "absent.safetensors"}, "does not exist"),
        ({"d": f"{STEM}-00002-of-00002.safetensors"}, r"disagree on 1 keys \(d\)"),
        ({"c": f"{STEM}-00002-of-00002.safetensors"}, r"disagree on 1 keys \(c\)"),
    ],
)
def test_an_index_that_is_not_true_is_refused(
    tmp_path: Path, changes: dict[str, str], says: str
) -> None:
    shards(tmp_path, f"{STEM}.safetensors.index.json", **changes)
    with pytest.raises(CheckpointError, match=says):
        open_weights(tmp_path, STEM)


@pytest.mark.parametrize("weight_map", [None, [], {}, {"a": 7}, {"a": ["x.safetensors"]}])
def test_an_index_that_is_none_is_refused(tmp_path: Path, weight_map: Any) -> None:
    index = {"weight_map": weight_map}
    (tmp_path / f"{STEM}.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"no weight_map|no \.safetensors file"):
        open_weights(tmp_path, STEM)


def test_a_device_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match="is no regular file"):
        load_json(tmp_path / "config.json")


@pytest.mark.parametrize("number", NUMBERS)
def test_mutated_indices_are_read_or_refused(tmp_path: Path, number: int) -> None:
    index = shards(tmp_path, f"{STEM}.safetensors.index.json")
    num_refused = 0
    for data in mutated(index.read_bytes(), number, seed=number):
        index.write_bytes(data)
        num_refused += refused(lambda: open_weights(tmp_path, STEM))
    assert number / 2 < num_refused < number


@pytest.mark.parametrize("number", NUMBERS)
def test_mutated_configs_are_read_or_refused(tmp_path: Path, number: int) -> None:
    path = tmp_path / "config.json"
    config = {"_class_name": "UNet2DConditionModel", "sizes": [320, 640], "act_fn": None, "x": {}}
    save_json(path, config)
    num_refused = 0
    for data in mutated(path.read_bytes(), number, seed=number):
        path.write_bytes(data)
        num_refused += refused(lambda: load_config(path))
    assert number / 4 < num_refused < number
