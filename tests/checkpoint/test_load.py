from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sd_checkpoint import (
    Checkpoint,
    CheckpointError,
    KeyMap,
    Rule,
    load_into,
    only,
    save_safetensors,
    skeleton,
)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in module.state_dict().items()}


def test_a_module_gets_every_tensor() -> None:
    source, target = network(), network()
    load_into(target, source.state_dict(), what="a")
    for key, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], tensor)


def test_a_materialised_module_keeps_its_parameters_and_memory_format() -> None:
    target = network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = target[0].weight
    load_into(target, tensors_of(network()), what="a")
    assert target[0].weight is before
    assert target[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_module_never_shares_memory_with_what_it_was_loaded_from() -> None:
    source = network()
    with torch.device("meta"):
        hollow = network()
    for target in (network(), hollow):
        load_into(target, source.state_dict(), what="a")
        before = tensors_of(source)
        nn.init.zeros_(target[0].weight)
        assert torch.equal(source[0].weight, before["0.weight"])


def test_a_module_on_the_meta_device_comes_alive() -> None:
    source = network()
    with torch.device("meta"):
        target = network()
    load_into(target, source.state_dict(), what="a")
    image = torch.randn(2, 3, 5, 5)
    assert torch.equal(target(image), source(image))
    assert target[0].weight.requires_grad


@pytest.mark.parametrize("place", ["cpu", "meta"])
def test_the_type_is_the_modules_own_unless_one_is_asked_for(place: str) -> None:
    half = {k: t.half() if t.is_floating_point() else t for k, t in network().state_dict().items()}
    for asked, expected in ((None, torch.float32), (torch.bfloat16, torch.bfloat16)):
        with torch.device(place):
            target = network()
        load_into(target, half, what="a", dtype=asked)
        assert target[0].weight.dtype == expected
        assert target[1].num_batches_tracked.dtype == torch.int64


def test_a_lazy_checkpoint_is_taken_as_it_is(tmp_path: Path) -> None:
    source = network()
    tensors = {f"net.{key}": tensor for key, tensor in source.state_dict().items()}
    save_safetensors(tmp_path / "a.safetensors", tensors)
    target = network()
    load_into(target, Checkpoint.open(tmp_path / "a.safetensors").under("net."), what="a")
    assert torch.equal(target[0].weight, source[0].weight)


def test_missing_and_unexpected_keys_are_counted_and_named_in_one_line() -> None:
    tensors = tensors_of(network())
    del tensors["0.bias"]
    tensors |= {f"alien.{i:02}": torch.zeros(1) for i in range(10)}
    message = (
        r"^vae\.safetensors does not fit the model: keys 1 missing \(0\.bias\), "
        r"10 unexpected \(alien\.00, .*alien\.07 and 2 more\)$"
    )
    with pytest.raises(CheckpointError, match=message):
        load_into(network(), tensors, what="vae.safetensors")


def test_another_shape_is_named_with_both_shapes() -> None:
    tensors = tensors_of(network()) | {"0.weight": torch.zeros(4, 3, 1, 1)}
    with pytest.raises(CheckpointError, match=r"0\.weight \(4, 3, 1, 1\) for \(4, 3, 3, 3\)"):
        load_into(network(), tensors, what="a")


def test_a_module_is_untouched_by_what_does_not_fit() -> None:
    target = network()
    before = tensors_of(target)
    tensors = tensors_of(network()) | {"1.bias": torch.zeros(9)}
    with pytest.raises(CheckpointError):
        load_into(target, tensors, what="a", dtype=torch.float16)
    assert all(torch.equal(target.state_dict()[key], tensor) for key, tensor in before.items())
    assert target[0].weight.dtype == torch.float32


def read_into(file: Path, *, dtype: torch.dtype | None = None) -> tuple[Checkpoint, nn.Module]:
    with torch.device("meta"):
        target = network()
    checkpoint = Checkpoint.open(file)
    load_into(target, checkpoint, what="a", dtype=dtype)
    return checkpoint, target


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_safetensors(tmp_path / "a.safetensors", network().state_dict())
    return tmp_path / "a.safetensors"


def test_modules_of_one_checkpoint_share_nothing(file: Path) -> None:
    checkpoint, first = read_into(file)
    with torch.device("meta"):
        second = network()
    load_into(second, checkpoint, what="a")
    before = tensors_of(second)
    nn.init.zeros_(first[0].weight)
    checkpoint["0.bias"].zero_()
    assert all(torch.equal(second.state_dict()[key], tensor) for key, tensor in before.items())
    assert all(torch.equal(tensor, before[key]) for key, tensor in Checkpoint.open(file).items())


def test_a_module_can_be_written_over_the_file_it_was_loaded_from(file: Path) -> None:
    _, target = read_into(file)
    expected = tensors_of(target)
    with torch.no_grad():
        target[0].bias.add_(1)
    save_safetensors(file, target.state_dict())
    assert torch.equal(Checkpoint.open(file)["0.bias"], expected["0.bias"] + 1)
    assert torch.equal(target[0].weight, expected["0.weight"])


def test_weights_that_a_pickle_ties_come_apart(tmp_path: Path) -> None:
    bias = torch.randn(3)
    torch.save({"0.bias": bias, "1.bias": bias}, tmp_path / "a.pt")
    with torch.device("meta"):
        target = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
        for layer in target:
            del layer.weight
    load_into(target, Checkpoint.open(tmp_path / "a.pt"), what="a")
    nn.init.zeros_(target[0].bias)
    assert torch.equal(target[1].bias, bias)


def test_renamed_and_chosen_tensors_are_converted_as_they_are_read(file: Path) -> None:
    source = Checkpoint.open(file)
    keys = KeyMap([Rule("{*}", "net.{*}")])
    with torch.device("meta"):
        target = nn.ModuleDict({"net": network()})
    load_into(target, only(keys.apply(source), [f"net.{key}" for key in source]), what="a")
    assert torch.equal(target["net"][0].weight, source["0.weight"])
    load_into(target, keys.apply(source), what="a", dtype=torch.bfloat16)
    assert torch.equal(target["net"][0].weight, source["0.weight"].bfloat16())


def test_a_hollow_module_comes_alive_on_the_device_asked_for(file: Path) -> None:
    with torch.device("meta"):
        target = network()
    load_into(target, Checkpoint.open(file), what="a", device="cpu")
    assert {tensor.device.type for tensor in target.state_dict().values()} == {"cpu"}
    if torch.cuda.is_available():
        load_into(target, Checkpoint.open(file), what="a", device="cuda")
        assert {tensor.device.type for tensor in target.state_dict().values()} == {"cuda"}


def test_a_hollow_module_stays_hollow_when_a_shape_is_wrong(file: Path) -> None:
    with torch.device("meta"):
        target = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    with pytest.raises(CheckpointError, match=r"0\.weight \(4, 3, 3, 3\) for \(4, 3, 1, 1\)"):
        load_into(target, Checkpoint.open(file), what="a", dtype=torch.float16)
    assert target[0].weight.is_meta
    assert target[0].weight.dtype == torch.float32


def test_a_skeleton_has_no_memory_and_is_as_good_as_any_module() -> None:
    torch.manual_seed(0)
    source = network()
    before = torch.get_rng_state()
    with skeleton():
        hollow = network()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(tensor.is_meta for tensor in hollow.state_dict().values())
    load_into(hollow, source.state_dict(), what="a")
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(hollow.eval()(x), source.eval()(x))
    assert not network()[0].weight.is_meta
