"""A folder of pictures that were drawn, with their captions, as training data has them."""

import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from sd_checkpoint import atomic_path
from sd_train.errors import TrainError
from sd_train.images import save_png


class DrawnFolder:
    """Writes pictures and `metadata.jsonl`; raises TrainError for a folder that is not empty."""

    def __init__(self, folder: Path) -> None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise TrainError(f"{folder} is not an empty folder; name a new one")
        self.folder = folder
        self._lines: list[str] = []

    def add(self, images: Tensor, captions: Sequence[str]) -> None:
        """Write uint8 pictures (B, 3, H, W), numbered on, and what they were drawn from."""
        for image, caption in zip(images, captions, strict=True):
            name = f"{len(self._lines):06d}.png"
            save_png(self.folder / name, image)
            self._lines.append(json.dumps({"file_name": name, "text": caption}) + "\n")
        with atomic_path(self.folder / "metadata.jsonl") as temporary:
            temporary.write_text("".join(self._lines), encoding="utf-8")
