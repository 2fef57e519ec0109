"""How like a subject drawn pictures are, and how far they keep to their prompts, by a CLIP."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sd_train.data import PictureFolder
from sd_train.features import clip_vectors
from sd_train.judges import Clip, load_clip, unit

_LOOKS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Likeness:
    """A CLIP's vectors of length one, of the subject's pictures (N, P) and of K prompts (K, P)."""

    clip: Clip
    subject: Tensor
    texts: Tensor

    def scalars(self, images: Tensor) -> dict[str, float]:
        """Judge uint8 pictures (K, 3, H, W) of the prompts: 100 times mean cosines.

        Ruiz et al., arXiv:2208.12242, section 4.1: CLIP-I, of every picture drawn with every one of
        the subject, and CLIP-T, of a picture with its prompt.
        """
        drawn = _seen(self.clip, images)
        return {
            "subject_likeness": 100 * float((drawn @ self.subject.T).mean()),
            "prompt_score": 100 * float((drawn * self.texts).sum(1).mean()),
        }


def open_likeness(
    clip: Path, folder: PictureFolder, prompts: Sequence[str], device: torch.device
) -> Likeness:
    """Open a CLIP and let it see the subject's pictures, the held-out ones where there are some.

    The prompts are of the subject's class: its name is no word of a CLIP's. Raises as `load_clip`.
    """
    judge = load_clip(clip, device)
    places = (folder.held_out or sorted(set(folder.training)))[:_LOOKS]
    pooled = judge.text.encode(list(prompts)).pooled
    assert pooled is not None
    return Likeness(
        clip=judge,
        subject=_seen(judge, folder.squares(places)),
        texts=unit(pooled),
    )


def _seen(clip: Clip, images: Tensor) -> Tensor:
    # Autocast that is on for the model that draws is no affair of the one who judges.
    with torch.autocast(next(clip.image.parameters()).device.type, enabled=False):
        return unit(clip_vectors(clip.image, images))
