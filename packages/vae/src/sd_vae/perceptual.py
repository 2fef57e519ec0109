"""The distance of pictures as a network sees them (Zhang et al. 2018, arXiv:1801.03924)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sd_checkpoint import AnyRule, KeyMap, Rule, only

__all__ = ["LPIPS", "perceptual_weights"]

_VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
# ImageNet's means and deviations, for pictures in [-1, 1].
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_EPS = 1e-10
_LEAST_SIZE = 16

# Where the weights are in a file: LPIPS's or torchvision's own, torchmetrics', that of an
# autoencoder in LDM's layout which was saved with its loss.
_PREFIXES = ("", "net.", "loss.perceptual_loss.")


class LPIPS(nn.Module):
    """Compare pictures by the features of VGG16, each channel by its weight.

    The features (Simonyan & Zisserman 2014, arXiv:1409.1556) are those after the last activation of
    each of the five stages; `lins` are the weights of their channels, by how much people see a
    difference there, or all ones for the plain distance of the features. `features` has
    torchvision's keys. The weights are random until they are loaded, and frozen.
    """

    least_size = _LEAST_SIZE

    def __init__(self, stages: tuple[tuple[int, int], ...] = _VGG16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.taps: list[int] = []
        in_channels = 3
        for i, (width, num_convs) in enumerate(stages):
            if i:
                layers.append(nn.MaxPool2d(2))
            for _ in range(num_convs):
                layers += [nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU()]
                in_channels = width
            self.taps.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)
        self.lins = nn.ParameterList(torch.ones(width) for width, _ in stages)
        self.requires_grad_(False)

    def forward(self, images: Tensor, recon: Tensor) -> Tensor:
        """Return the distances (B,) of pictures (B, 3, H, W) in [-1, 1], 16 px or more a side.

        Zhang et al. 2018, equation 1. Under autocast the features are its type's, and compared in
        float32.
        """
        total = torch.zeros(len(images), device=images.device)
        both = zip(self.lins, self._stages(images), self._stages(recon), strict=True)
        for weight, ours, theirs in both:
            difference = (_directions(ours) - _directions(theirs)).square()
            total = total + (weight[:, None, None] * difference).sum(1).mean((1, 2))
        return total

    def _stages(self, images: Tensor) -> list[Tensor]:
        channels = zip(images.unbind(1), _SHIFT, _SCALE, strict=True)
        x = torch.stack([(channel - shift) / scale for channel, shift, scale in channels], dim=1)
        found = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.taps:
                found.append(x)
        return found


def perceptual_weights(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """View what a file holds of `LPIPS`, under its keys: all of it, the VGG16, `lins`, or nothing.

    It reads the keys of LPIPS's files with and without the network, torchvision's VGG16,
    torchmetrics' and, below `loss.`, those of an autoencoder's checkpoint in LDM's layout. What
    else is there is left out. Tensors are read when they are asked for.
    """
    for prefix in _PREFIXES:
        rules = _rules(prefix)
        # LPIPS names its `lin0` a second time, as `lins.0`; torchvision has a classifier.
        keys = [
            key
            for key in tensors
            if key.startswith(tuple(rule.sources[0].split("{")[0] for rule in rules))
        ]
        if keys:
            return KeyMap(rules).apply(only(tensors, keys))
    return {}


def _rules(prefix: str) -> list[AnyRule]:
    rules: list[AnyRule] = [Rule(f"{prefix}features.{{}}.{{}}", "features.{}.{}")]
    for stage in range(len(_VGG16)):
        rules.append(Rule(f"{prefix}net.slice{stage + 1}.{{}}.{{}}", "features.{}.{}"))
        # 1 behind a dropout, 0 without one.
        for position in (0, 1):
            source = f"{prefix}lin{stage}.model.{position}.weight"
            rules.append(Rule(source, f"lins.{stage}", ("1 c 1 1", "c")))
    return rules


def _directions(features: Tensor) -> Tensor:
    """Bring the features (B, C, H, W) of every place to length one."""
    features = features.float()
    lengths: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / (lengths + _EPS)
