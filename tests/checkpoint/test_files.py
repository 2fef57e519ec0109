import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sd_checkpoint import Checkpoint, CheckpointError, only, save_safetensors

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


def test_types_are_known_without_the_tensors(path: Path) -> None:
    assert Checkpoint.open(path).dtypes()["unet.step"] == torch.int64


def test_every_type_of_the_format_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    types = "bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 float8_e4m3fn float8_e5m2 "
    types += "float16 bfloat16 float32 float64 complex64"
    values = torch.tensor([[0, 1, 2], [3, 4, 5]])
    tensors = {name: values.to(getattr(torch, name)) for name in types.split()}
    tensors |= {"none": torch.empty(3, 0), "one": torch.tensor(2.5), "odd": torch.tensor([True])}
    save_safetensors(tmp_path / "a.safetensors", tensors)
    read = Checkpoint.open(tmp_path / "a.safetensors")
    expected = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert read.keys() == expected.keys()
    for key, tensor in read.items():
        assert tensor.dtype == expected[key].dtype
        assert tensor.shape == expected[key].shape
        assert tensor.reshape(-1).tolist() == expected[key].reshape(-1).tolist()


def test_tensors_that_do_not_begin_at_a_multiple_of_their_size_are_read(tmp_path: Path) -> None:
    entry = '"%s":{"dtype":"%s","shape":[%d],"data_offsets":[%d,%d]}'
    text = "{" + entry % ("a", "U8", 1, 0, 1) + "," + entry % ("b", "F32", 2, 1, 9) + "}"
    data = b"\x07" + torch.tensor([1.5, -2.0]).numpy().tobytes()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text.encode() + data)
    read = Checkpoint.open(tmp_path / "a.safetensors")
    assert read["a"].tolist() == [7]
    assert read["b"].tolist() == [1.5, -2.0]


def test_what_is_written_into_a_tensor_does_not_reach_the_file(path: Path) -> None:
    checkpoint = Checkpoint.open(path)
    checkpoint["vae.conv.weight"].zero_()
    assert checkpoint["vae.conv.weight"].sum() == 0
    assert torch.equal(Checkpoint.open(path)["vae.conv.weight"], TENSORS["vae.conv.weight"])


def test_released_tensors_live_on_and_new_ones_are_as_in_the_file(path: Path) -> None:
    checkpoint = Checkpoint.open(path)
    old = checkpoint["vae.conv.weight"].zero_()
    checkpoint.release()
    assert torch.equal(checkpoint["vae.conv.weight"], TENSORS["vae.conv.weight"])
    assert old.sum() == 0


def test_a_file_that_is_replaced_stays_what_it_was_for_whom_has_it_open(path: Path) -> None:
    checkpoint = Checkpoint.open(path)
    save_safetensors(path, {"other": torch.zeros(1)})
    checkpoint.release()
    assert torch.equal(checkpoint["vae.conv.bias"], TENSORS["vae.conv.bias"])


def test_chosen_keys_stay_lazy_and_a_missing_one_is_named(path: Path) -> None:
    part = only(Checkpoint.open(path), ["unet.step"])
    assert list(part) == ["unet.step"]
    assert part["unet.step"] == 7
    assert "vae.conv.bias" not in part
    with pytest.raises(KeyError):
        part["vae.conv.bias"]
    with pytest.raises(CheckpointError, match=r"1 keys are missing: te\.weight"):
        only(Checkpoint.open(path), ["te.weight"])


def test_a_header_that_promises_more_than_the_file_holds_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"shape":[2,3]', b'"shape":[9,9]'))
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        Checkpoint.open(path)


def test_a_written_file_can_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    save_safetensors(tmp_path / "a.safetensors", {"a": torch.zeros(1)})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
