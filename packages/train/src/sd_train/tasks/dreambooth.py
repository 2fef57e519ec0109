"""The whole model learns one subject and keeps its class (Ruiz et al., arXiv:2208.12242)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from sd_adapters import Lora
from sd_checkpoint import load_json, save_json
from sd_pipeline import Picture, Txt2Img, save_model
from sd_train.contact_sheet import save_sheet
from sd_train.data import PictureFolder
from sd_train.finetune_base import Base, open_base, open_pictures
from sd_train.finetune_config import DreamBoothConfig
from sd_train.latents import DenoiserSource
from sd_train.new_loras import new_loras, save_new_loras, with_text_rate
from sd_train.precision import EXPORT_DTYPES
from sd_train.prior import PriorSource, draw_class_pictures
from sd_train.processes import first_goes_first
from sd_train.reporter import Reporter
from sd_train.subject import captions_of, class_prompt_of, in_places, with_words
from sd_train.task import Batch
from sd_train.tasks.finetuning import FinetuneTask, lora_metadata

SHEET = "contact-sheet.png"
_DEFAULTS = "sampling.json"


class DreamBoothTask(FinetuneTask[DreamBoothConfig]):
    """Trains all weights, or a LoRA, on a subject's pictures and on pictures of its class."""

    def __init__(
        self,
        base: Base[DreamBoothConfig],
        subject: DenoiserSource,
        prior: DenoiserSource | None,
    ) -> None:
        super().__init__(base, subject, None if prior is None else PriorSource(subject, prior))
        self.with_prior = prior is not None
        settings, seed = base.config.lora, base.config.trainer.seed
        self.loras: dict[str, Lora] = {}
        if settings is not None:
            self.loras = new_loras(base.parts, settings, seed)

    def modules(self) -> Mapping[str, nn.Module]:
        """Name what learns: the LoRAs, or the UNet and perhaps the text encoder."""
        if self.loras:
            return self.loras
        whole: dict[str, nn.Module] = {"unet": self.parts.unet}
        if self.config.train_text:
            whole["text_encoder"] = self.parts.text_encoder
        return {name: module.requires_grad_(True) for name, module in whole.items()}

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the class' loss to the subject's (Ruiz et al., equation 2)."""
        if not self.with_prior:
            return super().loss(batch, generator)
        losses, errors = self.denoising.losses(batch, generator)
        own, prior = losses.chunk(2)
        mse, prior_mse = errors.detach().chunk(2)
        loss = own.mean() + self.config.prior_weight * prior.mean()
        return loss, {"mse": mse.mean(), "prior_mse": prior_mse.mean()}

    def export(self, folder: Path) -> None:
        """Write the model's folder, or the LoRA's file, and the contact sheet beside the run."""
        settings = self.config.lora
        if settings is not None:
            path = folder / self.config.file_name
            save_new_loras(path, self.loras, self.parts, settings, lora_metadata(self))
        else:
            save_model(folder, self.parts, dtype=EXPORT_DTYPES[self.config.export_dtype])
            defaults = self.base.path / _DEFAULTS
            if defaults.is_file():
                save_json(folder / _DEFAULTS, load_json(defaults))
        if self.config.contact_sheet:
            self._save_sheet()

    def _save_sheet(self) -> None:
        """Show the subject's pictures, then it in new places, then its class without it."""
        count, encoder = self.config.contact_sheet, self.parts.text_encoder
        folder = self.subject.folder
        own = range(min(count, len(folder)))
        shown = rearrange(folder.pictures(own), "b c h w -> b h w c").numpy()
        rows = [("learnt from", [Image.fromarray(each) for each in shown])]
        pipeline = self.base.pipeline()
        for prompt in (self.config.instance_prompt, self.config.class_prompt):
            drawn: list[Picture] = []
            with self.base.drawing():
                for seed, placed in enumerate(in_places(encoder, prompt, count)):
                    drawn += pipeline.txt2img(Txt2Img(prompt=placed, seed=seed))
            rows.append((f"{prompt!r} in new places", [picture.image for picture in drawn]))
        save_sheet(self.base.run_folder / SHEET, rows, folder.config.size)


def build_dreambooth_task(
    config: DreamBoothConfig, run_folder: Path, reporter: Reporter
) -> DreamBoothTask:
    """Load the model, read the subject's pictures and draw or read those of its class."""
    learning = {"unet": config.lora is None, "text_encoder": config.train_text}
    whole = [name for name, learns in learning.items() if learns]
    base = open_base(config, run_folder, reporter, whole=whole)
    encoder = base.parts.text_encoder
    folder = open_pictures(config, reporter)
    config = with_words(config, encoder, folder)
    class_prompt = config.class_prompt or class_prompt_of(config, encoder)
    config = config.model_copy(update={"class_prompt": class_prompt})
    if config.lora is not None:
        rates = with_text_rate(config.trainer, config.lora, len(base.parts.towers))
        config = config.with_rates(rates)
    base = base.with_config(config)
    live = config.train_text or (config.lora is not None and config.lora.text)
    texts = [[caption] for caption in captions_of(folder, config)]
    subject = base.source(folder, texts, live=live)
    prior = _prior(base, live=live) if config.prior_weight else None
    return DreamBoothTask(base, subject, prior)


def _prior(base: Base[DreamBoothConfig], *, live: bool) -> DenoiserSource:
    """Prepare the pictures of the class."""
    config = base.config
    place = config.class_folder
    if not place:
        with first_goes_first():
            place = str(draw_class_pictures(base, config.class_prompt, config.num_class_images))
    folder = PictureFolder(config.data.model_copy(update={"folder": place, "holdout": 0}))
    base.reporter.message(f"{len(folder)} pictures of the class in {place}")
    return base.source(folder, [[config.class_prompt]] * len(folder), live=live)
