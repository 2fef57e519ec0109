import pytest
import torch
from torch import Tensor

from sd_checkpoint import CheckpointError, load_into
from sd_vae import LPIPS, perceptual_weights

TINY = ((4, 1), (8, 2), (8, 1))
CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # torchvision's places of VGG16's
SLICES = {index: 1 + sum(index > last for last in (3, 8, 15, 22)) for index in CONVS}


def network(prefix: str = "net.") -> dict[str, Tensor]:
    """VGG16 as LPIPS's own file spells it, every tensor a number of its own."""
    return {
        f"{prefix}slice{number}.{index}.{kind}": torch.tensor(index + (kind == "bias") / 2)
        for index, number in SLICES.items()
        for kind in ("weight", "bias")
    }


def layers(name: str) -> dict[str, Tensor]:
    return {name.format(i): torch.full((1, 3, 1, 1), float(i)) for i in range(5)}


def pictures(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1


def tiny() -> LPIPS:
    torch.manual_seed(0)
    return LPIPS(TINY)


def test_a_picture_has_no_distance_to_itself_and_the_same_both_ways() -> None:
    lpips, a, b = tiny(), pictures(0), pictures(1)
    assert lpips(a, a).tolist() == [0.0, 0.0]
    assert (lpips(a, b) > 0).all()
    torch.testing.assert_close(lpips(a, b), lpips(b, a))


def test_pictures_of_a_batch_are_compared_each_by_itself() -> None:
    lpips, a, b = tiny(), pictures(0), pictures(1)
    torch.testing.assert_close(lpips(a, b)[1:], lpips(a[1:], b[1:]))


def test_what_is_reconstructed_gets_gradients_and_the_network_none() -> None:
    lpips, a, b = tiny(), pictures(0), pictures(1).requires_grad_(True)
    lpips(a, b).sum().backward()
    assert b.grad is not None
    assert b.grad.isfinite().all()
    assert b.grad.abs().sum() > 0
    assert not [p for p in lpips.parameters() if p.requires_grad]


def test_places_without_any_feature_have_finite_gradients() -> None:
    lpips, b = tiny(), pictures(1).requires_grad_(True)
    with torch.no_grad():
        for name, parameter in lpips.named_parameters():
            if name.endswith("bias"):
                parameter.fill_(-100.0)
    lpips(pictures(0), b).sum().backward()
    assert b.grad is not None
    assert b.grad.abs().sum() == 0


def test_the_weights_of_a_stages_channels_scale_its_part() -> None:
    lpips, a, b = tiny(), pictures(0), pictures(1)
    plain = lpips(a, b)
    with torch.no_grad():
        for weight in lpips.lins:
            weight.mul_(3.0)
    torch.testing.assert_close(lpips(a, b), 3.0 * plain)


@pytest.mark.parametrize("prefix", ["", "net.", "loss.perceptual_loss."])
def test_a_whole_file_of_lpips_is_read_wherever_it_lies(prefix: str) -> None:
    file = {
        **network(f"{prefix}net."),
        **layers(f"{prefix}lin{{}}.model.1.weight"),
        **layers(f"{prefix}lins.{{}}.model.1.weight"),  # the same once more
        f"{prefix}scaling_layer.shift": torch.zeros(1, 3, 1, 1),
        "encoder.conv_in.weight": torch.zeros(1),
    }
    found = perceptual_weights(file)
    assert found.keys() == LPIPS().state_dict().keys()
    assert all(found[f"features.{index}.weight"] == index for index in CONVS)
    assert found["lins.3"].tolist() == [3.0, 3.0, 3.0]


def test_parts_of_it_are_read_and_anything_else_is_nothing() -> None:
    assert perceptual_weights(layers("lin{}.model.0.weight")).keys() == {
        f"lins.{i}" for i in range(5)
    }
    torchvision = {f"features.{i}.weight": torch.zeros(1) for i in CONVS}
    found = perceptual_weights(torchvision | {"classifier.0.weight": torch.zeros(1)})
    assert found.keys() == torchvision.keys()
    assert perceptual_weights({"encoder.conv_in.weight": torch.zeros(1)}) == {}


def test_another_network_with_features_is_refused() -> None:
    with pytest.raises(CheckpointError, match="features"):
        perceptual_weights({"features.0.0.weight": torch.zeros(1)})
    deeper = perceptual_weights({"features.30.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="deeper"):
        load_into(tiny(), deeper, what="deeper")
