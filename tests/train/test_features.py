"""The networks of features: Inception against torchvision's, and files that are none."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import Inception3

from sd_checkpoint import save_safetensors
from sd_train import TrainError
from sd_train.features import load_features
from sd_train.seeds import generator_for

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def peer() -> Inception3:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Inception3(1008, aux_logits=False, transform_input=False, init_weights=False)
    return network.eval()


def test_inception_is_torchvisions_with_the_poolings_of_2015(
    peer: Inception3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_safetensors(tmp_path / "inception.safetensors", peer.state_dict())
    network = load_features(tmp_path / "inception.safetensors", CPU)
    images = torch.randint(
        256, (2, 3, 299, 299), generator=generator_for(0, "x", 0), dtype=torch.uint8
    )
    ours = network.see(images)

    means = F.avg_pool2d

    def without_border(x: Tensor, *, kernel_size: int, stride: int, padding: int) -> Tensor:
        return means(x, kernel_size, stride, padding, count_include_pad=False)

    def highest(x: Tensor, *, kernel_size: int, stride: int, padding: int) -> Tensor:
        return F.max_pool2d(x, kernel_size, stride, padding)

    monkeypatch.setattr(F, "avg_pool2d", without_border)
    peer.fc = nn.Identity()
    # The last block alone ends in a maximum.
    peer.Mixed_7c.register_forward_pre_hook(
        lambda *_: monkeypatch.setattr(F, "avg_pool2d", highest)
    )
    with torch.no_grad():
        theirs = peer(images.float() / 127.5 - 1)
    assert network.num_features == 2048
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-4, atol=1e-5)
    assert "that of published FIDs" in network.name


class Seeing(nn.Module):
    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        means = x.float().mean((2, 3))
        return means if return_features else means.sum(1)


class Blind(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float().mean()


def test_a_torchscript_program_sees_pictures_at_299_px(tmp_path: Path) -> None:
    torch.jit.script(Seeing()).save(str(tmp_path / "seeing.pt"))
    network = load_features(tmp_path / "seeing.pt", CPU)
    assert network.num_features == 3
    images = torch.arange(3, dtype=torch.uint8)[None, :, None, None].expand(2, 3, 16, 16) * 50
    assert network.see(images).tolist() == [[0.0, 50.0, 100.0]] * 2
    assert "program seeing.pt, sha256 " in network.name


def test_files_that_give_no_features_are_told(tmp_path: Path) -> None:
    torch.jit.script(Blind()).save(str(tmp_path / "blind.pt"))
    with pytest.raises(TrainError, match=r"gives \(\) for 2 pictures; it must give \(2, features"):
        load_features(tmp_path / "blind.pt", CPU)
    with pytest.raises(TrainError, match="is no file; name Inception's weights"):
        load_features(tmp_path / "none.pt", CPU)
    save_safetensors(tmp_path / "other.safetensors", {"weight": torch.zeros(2)})
    with pytest.raises(TrainError, match="holds no Inception v3"):
        load_features(tmp_path / "other.safetensors", CPU)
    few = {"fc.weight": torch.zeros(1000, 2), "Mixed_7c.branch_pool.conv.weight": torch.zeros(1)}
    save_safetensors(tmp_path / "few.safetensors", few)
    with pytest.raises(TrainError, match="an Inception of 1000 classes"):
        load_features(tmp_path / "few.safetensors", CPU)
