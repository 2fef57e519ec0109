import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sd_checkpoint import Checkpoint, CheckpointError, load_json, save_json, save_safetensors

TENSORS = {
    "vae.conv.weight": torch.arange(6.0).reshape(2, 3),
    "vae.conv.bias": torch.tensor([1.0, 2.0]),
    "unet.step": torch.tensor(7),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_safetensors(path, TENSORS, {"recipe": "scenes"})
    return path


def test_what_is_written_is_read_back(path: Path) -> None:
    checkpoint = Checkpoint.open(path)
    assert set(checkpoint) == set(TENSORS)
    assert len(checkpoint) == 3
    assert all(torch.equal(checkpoint[key], tensor) for key, tensor in TENSORS.items())


def test_the_header_carries_the_metadata_and_the_format(path: Path) -> None:
    assert Checkpoint.open(path).metadata == {"format": "pt", "recipe": "scenes"}


def test_the_library_of_the_format_reads_the_file(path: Path) -> None:
    assert safetensors.torch.load_file(path).keys() == TENSORS.keys()


def test_shapes_are_known_without_the_tensors(path: Path) -> None:
    assert Checkpoint.open(path).shapes()["vae.conv.weight"] == (2, 3)


def test_under_a_prefix_keys_lose_it(path: Path) -> None:
    part = Checkpoint.open(path).under("vae.").under("conv.")
    assert set(part) == {"weight", "bias"}
    assert torch.equal(part["bias"], TENSORS["vae.conv.bias"])
    assert "step" not in part
    assert part.shapes() == {"weight": (2, 3), "bias": (2,)}


def test_a_prefix_that_no_key_has_is_an_error_that_names_what_is_there(path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no keys under 'te\.'; it holds unet\.step, vae"):
        Checkpoint.open(path).under("te.")


def test_a_key_that_is_not_there_is_a_key_error(path: Path) -> None:
    with pytest.raises(KeyError):
        Checkpoint.open(path)["vae.conv"]


def test_strided_and_shared_tensors_are_written_contiguous_and_apart(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    image = torch.randn(1, 4, 3, 3).to(memory_format=torch.channels_last)
    tensors = {"base": base, "turned": base.T, "again": base, "row": base[1], "image": image}
    save_safetensors(tmp_path / "a.safetensors", tensors)
    back = Checkpoint.open(tmp_path / "a.safetensors")
    assert all(torch.equal(back[key], tensor) for key, tensor in tensors.items())
    assert back["turned"].is_contiguous()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    unwritable = torch.zeros(2, dtype=torch.complex128)  # the format has no such type
    with pytest.raises(Exception, match="complex128"):
        save_safetensors(tmp_path / "a.safetensors", {"good": torch.zeros(2), "a": unwritable})
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_place_of_the_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot write") as caught:
        save_safetensors(tmp_path, TENSORS)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.safetensors does not exist"):
        Checkpoint.open(tmp_path / "absent.safetensors")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_a_truncated_file_is_one_line(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="not a whole safetensors file") as caught:
        Checkpoint.open(path)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_kind_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        Checkpoint.open(path)


def test_a_header_that_promises_more_than_the_file_holds_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"shape":[2,3]', b'"shape":[9,9]'))
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        Checkpoint.open(path)


def test_json_is_read_back_as_written(tmp_path: Path) -> None:
    value = {"name": "Ωmega", "widths": [1, 2], "none": None}
    save_json(tmp_path / "a" / "config.json", value)
    assert load_json(tmp_path / "a" / "config.json") == value
    assert "Ωmega" in (tmp_path / "a" / "config.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
def test_broken_json_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"a\.json (is not readable JSON|holds a JSON list)"):
        load_json(tmp_path / "a.json")


def test_a_value_that_json_lacks_leaves_the_old_file(tmp_path: Path) -> None:
    save_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        save_json(tmp_path / "a.json", {"a": object()})
    assert load_json(tmp_path / "a.json") == {"a": 1}


def test_a_written_file_can_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    save_safetensors(tmp_path / "a.safetensors", {"a": torch.zeros(1)})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
