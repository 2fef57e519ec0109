"""Text and pictures learn to find one another (Radford et al., 2021, arXiv:2103.00020)."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_checkpoint import save_json
from sd_pipeline import save_image_encoder, save_text_encoder
from sd_textenc import CLIPImageConfig, CLIPImageEncoder, TextTower, scenes_image, vit_l14_image
from sd_train.clip_config import ClipTrainConfig
from sd_train.data import PictureFolder, describe
from sd_train.errors import TrainError
from sd_train.images import to_float
from sd_train.precision import EXPORT_DTYPES, resolve_device
from sd_train.reporter import Reporter, SilentReporter
from sd_train.seeds import derive_seed
from sd_train.settings import build_network_config, field_values
from sd_train.task import Batch, Validation
from sd_train.text import TOKEN_IDS, build_text_encoder, tokenize

PRESETS = {"scenes": scenes_image, "vit_l14": vit_l14_image}
_SHARPEST = math.log(100.0)
_CHUNK = 64


class ClipSource:
    """Pictures with the ids (N, orders, T) of their captions, as written and with moved tags."""

    def __init__(self, folder: PictureFolder, token_ids: Tensor) -> None:
        self.folder = folder
        self.token_ids = token_ids

    def __len__(self) -> int:
        """Count the training pictures."""
        return len(self.folder.training)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """Gather pictures, cropped and mirrored as configured, and their captions."""
        places = [self.folder.training[i] for i in indices]
        images = self.folder.crops(places, generator)
        orders = torch.randint(self.token_ids.shape[1], (len(places),), generator=generator)
        return {"images": images, TOKEN_IDS[0]: self.token_ids[places, orders]}


class Scale(nn.Module):
    """The learnt temperature: cosines are multiplied by it, a hundredfold at most."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self) -> Tensor:
        """Return the factor, a scalar."""
        return self.log.clamp(max=_SHARPEST).exp()


class Found(NamedTuple):
    """How well pictures and captions find each other: shares from 0 to 1, and 100 cosines."""

    by_text: float
    by_image: float
    score: float


class ClipTask:
    """Trains both encoders and the temperature between them."""

    def __init__(
        self,
        text_encoder: TextTower,
        image_encoder: CLIPImageEncoder,
        source: ClipSource,
        config: ClipTrainConfig,
    ) -> None:
        # Imported here: open_clip takes seconds.
        from open_clip.loss import ClipLoss

        self.text_encoder = text_encoder
        self.image_encoder = image_encoder
        self.device = next(image_encoder.parameters()).device
        self.scale = Scale(config.temperature).to(self.device)
        self.source = source
        self.config = config
        self.criterion = ClipLoss()

    def modules(self) -> Mapping[str, nn.Module]:
        """Name what learns."""
        return {
            "text_encoder": self.text_encoder,
            "image_encoder": self.image_encoder,
            "logit_scale": self.scale,
        }

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002
        """Let each picture choose its caption out of the batch's, and each caption its picture."""
        images, texts = self._vectors(batch["images"], batch[TOKEN_IDS[0]])
        scale = self.scale()
        loss: Tensor = self.criterion(images, texts, scale)
        return loss, {"logit_scale": scale.detach()}

    def validate(self) -> Validation:
        """Measure the loss and who finds whom among the held-out pictures."""
        folder = self.source.folder
        held_out = folder.held_out
        if not held_out:
            return Validation()
        parts = [held_out[i : i + _CHUNK] for i in range(0, len(held_out), _CHUNK)]
        vectors = [
            self._vectors(
                folder.pictures(part).to(self.device),
                self.source.token_ids[part, 0].to(self.device),
            )
            for part in parts
        ]
        images, texts = (torch.cat(columns).float() for columns in zip(*vectors, strict=True))
        captions = [folder.captions[i] for i in held_out]
        found = find(images, texts, captions)
        return Validation(
            scalars={
                "loss": float(self.criterion(images, texts, self.scale().float())),
                "image_found_by_text": found.by_text,
                "text_found_by_image": found.by_image,
                "clip_score": found.score,
            }
        )

    def export(self, folder: Path) -> None:
        """Write both encoders, the text's as `train` takes it, and the temperature."""
        dtype = EXPORT_DTYPES[self.config.export_dtype]
        save_text_encoder(folder, self.text_encoder, dtype=dtype)
        save_image_encoder(folder, self.image_encoder, dtype=dtype)
        save_json(folder / "clip.json", {"logit_scale": float(self.scale())})

    def _vectors(self, images: Tensor, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors (B, P) of length one of pictures, uint8, and of captions."""
        of_images = self.image_encoder(to_float(images))
        pooled = self.text_encoder.encode_tokens(token_ids).pooled
        assert pooled is not None
        return F.normalize(of_images.float(), dim=-1), F.normalize(pooled.float(), dim=-1)


def find(images: Tensor, texts: Tensor, captions: Sequence[str]) -> Found:
    """Let vectors (N, P) of pictures and of their captions choose the nearest of each other.

    Another picture of an equal caption is as right.
    """
    cosines = images @ texts.T
    best_text, best_image = cosines.argmax(1).tolist(), cosines.argmax(0).tolist()
    rows = range(len(captions))
    return Found(
        by_text=sum(captions[best_image[i]] == captions[i] for i in rows) / len(captions),
        by_image=sum(captions[best_text[i]] == captions[i] for i in rows) / len(captions),
        score=100 * float(cosines.diagonal().clamp(min=0).mean()),
    )


def build_clip_task(config: ClipTrainConfig, reporter: Reporter | None = None) -> ClipTask:
    """Read the data and make both encoders, on their device."""
    reporter = reporter or SilentReporter()
    device = resolve_device(config.trainer.device)
    folder = PictureFolder(config.data)
    for line in describe(folder):
        reporter.message(line)
    fields = {"projection_dim": config.embed_dim, **config.text.fields}
    text = config.text.model_copy(update={"fields": fields})
    text_encoder, text = build_text_encoder(text, folder.captions, config.trainer.seed)
    if text_encoder.config.projection_dim != config.embed_dim:
        raise TrainError(
            f"the text encoder projects to {text_encoder.config.projection_dim}, but embed_dim is "
            f"{config.embed_dim}; make them equal, or begin with a new encoder"
        )
    side = config.data.crop or config.data.size
    fields = {"image_size": side, "projection_dim": config.embed_dim, **config.image.fields}
    network = build_network_config(
        CLIPImageConfig, PRESETS, config.image.preset, fields, at="image"
    )
    if network.image_size != side:
        raise TrainError(
            f"image.fields.image_size is {network.image_size}, but training sees {side} px; make "
            "them equal"
        )
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.trainer.seed, "init", 0))
        image_encoder = CLIPImageEncoder(network)
    image = config.image.model_copy(update={"fields": field_values(network)})
    config = config.model_copy(update={"text": text, "image": image})
    texts = folder.in_orders(folder.captions, config.trainer.seed)
    named, lines = tokenize(text_encoder, [text for orders in texts for text in orders])
    ids = named[TOKEN_IDS[0]]
    for line in lines:
        reporter.message(line)
    source = ClipSource(folder, ids.view(len(texts), -1, ids.shape[-1]))
    return ClipTask(text_encoder.to(device), image_encoder.to(device), source, config)
