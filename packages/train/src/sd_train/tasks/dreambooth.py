"""The whole model learns one subject and keeps its class (Ruiz et al., arXiv:2208.12242)."""

from collections.abc import Mapping
from pathlib import Path

from einops import rearrange
from PIL import Image
from torch import nn

from sd_adapters import Lora
from sd_checkpoint import load_json, save_json
from sd_pipeline import Picture, Txt2Img, save_model
from sd_train.contact_sheet import save_sheet
from sd_train.finetune_base import Base, open_base, open_pictures
from sd_train.finetune_config import DreamBoothConfig
from sd_train.latents import DenoiserSource
from sd_train.new_loras import new_loras, save_new_loras, with_text_rate
from sd_train.precision import EXPORT_DTYPES
from sd_train.prior import class_source, with_class
from sd_train.reporter import Reporter
from sd_train.subject import in_places, texts_of, with_words
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
        super().__init__(base, subject, prior)
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
            whole["text_encoder"] = self.parts.text
        return {name: module.requires_grad_(True) for name, module in whole.items()}

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
        count, encoder = self.config.contact_sheet, self.parts.text
        folder = self.subject.folder
        own = range(min(count, len(folder)))
        shown = rearrange(folder.squares(own), "b c h w -> b h w c").numpy()
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
    encoder = base.parts.text
    folder = open_pictures(config, reporter)
    config = with_class(with_words(config, encoder, folder), encoder)
    if config.lora is not None:
        rates = with_text_rate(config.trainer, config.lora, len(base.parts.towers))
        config = config.with_rates(rates)
    base = base.with_config(config)
    live = config.train_text or (config.lora is not None and config.lora.text)
    texts = texts_of(folder, config)
    subject = base.source(folder, texts, live=live)
    return DreamBoothTask(base, subject, class_source(base, live=live))
