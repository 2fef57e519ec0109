"""The perceptual network out of the files that a run names; nothing is ever downloaded."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sd_checkpoint import Checkpoint, load_into
from sd_train.config import PerceptualSettings
from sd_train.errors import TrainError
from sd_train.reporter import Reporter
from sd_vae import LPIPS, perceptual_weights


def load_perceptual(settings: PerceptualSettings, reporter: Reporter) -> LPIPS:
    """Read LPIPS, or VGG16 alone, which is told; raises TrainError where a file is another one."""
    found: dict[str, Tensor] = {}
    for field in ("weights", "vgg"):
        if getattr(settings, field):
            found |= _read(field, Path(getattr(settings, field)))
    whose = f"perceptual.weights = {settings.weights!r}"
    if not any(key.startswith("features.") for key in found):
        raise TrainError(
            f"{whose} has LPIPS's own layers alone; name a file of VGG16, such as torchvision's, "
            "as perceptual.vgg"
        )
    lpips = LPIPS()
    if not any(key.startswith("lins.") for key in found):
        reporter.message(f"{whose} is VGG16 without LPIPS's layers: its channels count equally")
        found |= {f"lins.{i}": weight.detach() for i, weight in enumerate(lpips.lins)}
    load_into(lpips, found, what=whose)
    return lpips.eval()


def _read(field: str, path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise TrainError(
            f"perceptual.{field} = {str(path)!r} is no file; nothing is downloaded, so name one "
            "that is there"
        )
    found = perceptual_weights(Checkpoint.open(path))
    if not found:
        raise TrainError(
            f"perceptual.{field} = {str(path)!r} holds neither LPIPS nor VGG16; name a file of "
            "LPIPS with its VGG16, or torchvision's VGG16"
        )
    return {key: tensor.to(torch.float32) for key, tensor in found.items()}
