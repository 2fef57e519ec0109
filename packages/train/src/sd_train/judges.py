"""What looks at drawn and real pictures: a network of features, and a CLIP."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sd_pipeline import load_image_encoder, load_text_encoder
from sd_textenc import CLIPImageEncoder, TextTower
from sd_train.errors import TrainError
from sd_train.features import FeatureNetwork, clip_features, clip_vectors, load_features
from sd_train.tasks.clip import Found, find

CLIP_FEATURES = "clip"
Pictures = Iterable[tuple[Tensor, Sequence[str]]]
"""Batches of uint8 pictures (B, 3, H, W) with their captions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """Both encoders of a CLIP, and where they lie."""

    text: TextTower
    image: CLIPImageEncoder
    origin: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Judges:
    """Those who look; None for whom there is no file."""

    features: FeatureNetwork | None = None
    clip: Clip | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What the judges saw in N pictures: features (N, D), and how they fit their captions."""

    features: Tensor | None
    found: Found | None


def open_judges(features: str | None, clip: Path | None, device: torch.device) -> Judges:
    """Open a file of features, or "clip" for those of the CLIP in a folder, and that CLIP.

    With a CLIP alone its features serve. Raises TrainError where there is no such thing, and as
    `load_features`.
    """
    judge = None if clip is None else load_clip(clip, device)
    if features is not None and features != CLIP_FEATURES:
        return Judges(features=load_features(Path(features), device), clip=judge)
    if judge is None:
        if features is None:
            return Judges()
        raise TrainError("features clip needs a CLIP; name the folder of one that train-clip made")
    return Judges(features=clip_features(judge.image, judge.origin), clip=judge)


def load_clip(folder: Path, device: torch.device) -> Clip:
    """Open what `train-clip` made, or its run's folder; raises TrainError where it is no CLIP."""
    place = folder / "model" if (folder / "model" / "image_encoder").is_dir() else folder
    if not (place / "image_encoder").is_dir() or not (place / "text_encoder").is_dir():
        raise TrainError(
            f"{folder} holds no CLIP, which is image_encoder/ beside text_encoder/; name the model "
            "folder of a finished run of train-clip"
        )
    text, image = load_text_encoder(place), load_image_encoder(place)
    told, seen = text.config.projection_dim, image.config.projection_dim
    if told != seen:
        raise TrainError(
            f"{place} holds encoders of {told} and of {seen} numbers; take a text and a picture "
            "encoder that were trained together"
        )
    text.to(device).eval().requires_grad_(False)
    return Clip(text=text, image=image.to(device), origin=str(folder))


@torch.no_grad()
def look(judges: Judges, pictures: Pictures, device: torch.device) -> Seen:
    """Let the judges look at all pictures, batch by batch; none is kept."""
    features, of_images, of_texts = [], [], []
    captions: list[str] = []
    # Autocast that is on for the model that draws is no affair of those who judge.
    for images, texts in pictures:
        with torch.autocast(device.type, enabled=False):
            if judges.features is not None:
                features.append(judges.features.see(images))
            if judges.clip is not None:
                of_images.append(unit(clip_vectors(judges.clip.image, images)))
                pooled = judges.clip.text.encode(list(texts)).pooled
                assert pooled is not None
                of_texts.append(unit(pooled))
        captions += texts
    found = find(torch.cat(of_images), torch.cat(of_texts), captions) if of_images else None
    return Seen(features=torch.cat(features) if features else None, found=found)


def unit(vectors: Tensor) -> Tensor:
    """Bring vectors (N, P) to length one, in fp32 on the CPU."""
    return F.normalize(vectors.float(), dim=-1).cpu()
