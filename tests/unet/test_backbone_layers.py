"""The blocks by which a network can be taken apart."""

import pytest
import torch

from sd_unet import Backbone, DiT, UNet, backbone_layers, dit_scenes, sd15


@pytest.fixture(params=["unet", "dit"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    with torch.device("meta"):
        return UNet(sd15()) if request.param == "unet" else DiT(dit_scenes())


def test_most_weights_are_in_one_of_the_layers_and_none_in_two(backbone: Backbone) -> None:
    inside = [parameter for layer in backbone_layers(backbone) for parameter in layer.parameters()]
    assert len(inside) == len(set(inside))
    every = sum(parameter.numel() for parameter in backbone.parameters())
    assert sum(parameter.numel() for parameter in inside) > 0.85 * every
