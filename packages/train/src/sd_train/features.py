"""The networks whose features tell sets of pictures apart: Inception from a file, or a CLIP."""

import hashlib
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sd_checkpoint import Checkpoint, load_into
from sd_textenc import CLIPImageEncoder
from sd_train.errors import TrainError
from sd_train.images import to_float
from sd_train.inception import NUM_CLASSES, NUM_FEATURES, SIDE, Inception

_AS_PUBLISHED = "that of published FIDs, if the file is what its shapes say"
_OTHER = "not comparable with published FIDs"


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureNetwork:
    """What sees features in pictures: `see` maps uint8 (B, 3, H, W) to (B, `num_features`).

    `name` says which network it is, and with what its distances can be compared.
    """

    name: str
    num_features: int
    see: Callable[[Tensor], Tensor]


def load_features(path: Path, device: torch.device) -> FeatureNetwork:
    """Open Inception's weights of 2015-12-05, or any network as a TorchScript program.

    Weights are safetensors or `.pth`. A program is run, so it must be one that is trusted; it gets
    uint8 pictures (B, 3, 299, 299), with `return_features=True` where it takes that, as the one in
    use for FID does. Raises TrainError where the file is neither, or gives no features.
    """
    if not path.is_file():
        raise TrainError(
            f"features {str(path)!r} is no file; name Inception's weights, a TorchScript program, "
            "or clip for the CLIP's own"
        )
    if _is_program(path):
        return _program(path, device)
    tensors = Checkpoint.open(path)
    found = {
        key: tensor
        for key, tensor in tensors.items()
        if not key.startswith(("fc.", "AuxLogits.")) and not key.endswith("num_batches_tracked")
    }
    if "Mixed_7c.branch_pool.conv.weight" not in found:
        raise TrainError(
            f"features {str(path)!r} holds no Inception v3: name the weights of 2015-12-05, by "
            "which FID is measured"
        )
    if "fc.weight" in tensors and len(tensors["fc.weight"]) != NUM_CLASSES:
        raise TrainError(
            f"features {str(path)!r} is an Inception of {len(tensors['fc.weight'])} classes, by "
            f"which no FID is measured; name the one of 2015-12-05, of {NUM_CLASSES}"
        )
    network = Inception()
    load_into(network, found, what=str(path))
    network.to(device).eval().requires_grad_(False)

    def see(images: Tensor) -> Tensor:
        return _plain(network(to_float(images.to(device))))

    name = f"Inception v3 from {path.name} ({_AS_PUBLISHED})"
    return FeatureNetwork(name=name, num_features=NUM_FEATURES, see=see)


def clip_features(encoder: CLIPImageEncoder, origin: str) -> FeatureNetwork:
    """Take a CLIP's vectors of pictures, before they are brought to length one, for features."""

    def see(images: Tensor) -> Tensor:
        return _plain(clip_vectors(encoder, images))

    name = f"the picture encoder of the CLIP {origin} ({_OTHER})"
    return FeatureNetwork(name=name, num_features=encoder.config.projection_dim, see=see)


def clip_vectors(encoder: CLIPImageEncoder, images: Tensor) -> Tensor:
    """Encode uint8 pictures (B, 3, H, W) of any size as vectors (B, P)."""
    side, device = encoder.config.image_size, next(encoder.parameters()).device
    pictures = to_float(images.to(device))
    if pictures.shape[-2:] != (side, side):
        sized = F.interpolate(pictures, (side, side), mode="bicubic", antialias=True)
        pictures = sized.clamp(-1, 1)
    vectors: Tensor = encoder(pictures)
    return vectors


def _program(path: Path, device: torch.device) -> FeatureNetwork:
    try:
        with warnings.catch_warnings():
            # Deprecated, but what FID's program is written in.
            warnings.simplefilter("ignore", FutureWarning)
            program = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise TrainError(
            f"features {str(path)!r} cannot be opened as a TorchScript program: "
            f"{str(error).splitlines()[0]}"
        ) from error
    told = {argument.name for argument in program.forward.schema.arguments}
    options = {"return_features": True} if "return_features" in told else {}

    def see(images: Tensor) -> Tensor:
        sized = images.to(device)
        if images.shape[-2:] != (SIDE, SIDE):
            sized = F.interpolate(sized.float(), (SIDE, SIDE), mode="bicubic", antialias=True)
            sized = sized.round().clamp(0, 255).to(torch.uint8)
        try:
            output = program(sized, **options)
        except RuntimeError as error:
            raise TrainError(
                f"features {str(path)!r} takes no uint8 pictures (B, 3, {SIDE}, {SIDE}): "
                f"{str(error).strip().splitlines()[-1]}"
            ) from error
        if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != len(images):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise TrainError(
                f"features {str(path)!r} gives {shape} for {len(images)} pictures; it must give "
                f"({len(images)}, features)"
            )
        return _plain(output)

    num_features = see(torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8)).shape[1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    name = f"the program {path.name}, sha256 {digest[:12]} (comparable with its own FIDs alone)"
    return FeatureNetwork(name=name, num_features=num_features, see=see)


def _plain(features: Tensor) -> Tensor:
    return features.detach().flatten(1).double().cpu()


def _is_program(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return any("/code/" in name for name in file.namelist())
