"""`sd_vae.LPIPS` on torchvision's VGG16 with the same random weights: 1e-6 max abs, float32."""

import torch
from torch import Tensor
from torchvision.models import vgg

from sd_checkpoint import load_into
from sd_vae import LPIPS, perceptual_weights

# After the last activation of each stage, as LPIPS's own `slice1` to `slice5` end.
TAPS = (3, 8, 15, 22, 29)
WIDTHS = (64, 128, 256, 512, 512)


def spelled_out(network: torch.nn.Module, lins: list[Tensor], a: Tensor, b: Tensor) -> Tensor:
    """Follow Zhang et al. 2018, equation 1, line by line."""
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    total = torch.zeros(len(a))
    a, b = (a - shift) / scale, (b - shift) / scale
    for index, layer in enumerate(network.children()):
        a, b = layer(a), layer(b)
        if index in TAPS:
            left = a / (a.square().sum(1, keepdim=True).sqrt() + 1e-10)
            right = b / (b.square().sum(1, keepdim=True).sqrt() + 1e-10)
            weighted = (left - right).square() * lins[TAPS.index(index)]
            total += weighted.sum(1).mean((1, 2))
    return total


def test_the_distances_are_those_of_torchvisions_network() -> None:
    torch.manual_seed(0)
    peer = vgg.make_layers(vgg.cfgs["D"], batch_norm=False).eval()
    lins = [torch.rand(1, width, 1, 1) for width in WIDTHS]
    file = {f"features.{key}": value for key, value in peer.state_dict().items()}
    file |= {f"lin{i}.model.1.weight": weight for i, weight in enumerate(lins)}
    ours = LPIPS()
    load_into(ours, perceptual_weights(file), what="the peer's weights")
    a, b = (torch.rand(2, 3, 32, 48) * 2 - 1 for _ in range(2))
    with torch.no_grad():
        mine, theirs = ours(a, b), spelled_out(peer, lins, a, b)
    assert (mine > 1e-3).all()
    assert (mine - theirs).abs().max() <= 1e-6
