"""Low-rank additions to the weights learn a subject or a style (Hu et al., arXiv:2106.09685)."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from sd_train.finetune_base import Base, open_base, open_pictures
from sd_train.finetune_config import LoraTrainConfig
from sd_train.latents import DenoiserSource
from sd_train.new_loras import new_loras, save_new_loras, with_text_rate
from sd_train.prior import class_source, with_class
from sd_train.reporter import Reporter
from sd_train.subject import texts_of, with_words
from sd_train.tasks.finetuning import FinetuneTask, lora_metadata


class LoraTask(FinetuneTask[LoraTrainConfig]):
    """Trains a LoRA of any kind over the UNet, and over the text encoders if so configured."""

    def __init__(
        self,
        base: Base[LoraTrainConfig],
        subject: DenoiserSource,
        prior: DenoiserSource | None,
    ) -> None:
        super().__init__(base, subject, prior)
        self.loras = new_loras(base.parts, base.config.lora, base.config.trainer.seed)

    def modules(self) -> Mapping[str, nn.Module]:
        """Name the LoRAs by the networks that they are over."""
        return self.loras

    def export(self, folder: Path) -> None:
        """Write one file with all of them."""
        path = folder / self.config.file_name
        save_new_loras(path, self.loras, self.parts, self.config.lora, lora_metadata(self))


def build_lora_task(config: LoraTrainConfig, run_folder: Path, reporter: Reporter) -> LoraTask:
    """Load the model, read the pictures and inject a new LoRA."""
    base = open_base(config, run_folder, reporter)
    folder = open_pictures(config, reporter)
    encoder = base.parts.text
    config = with_class(with_words(config, encoder, folder), encoder)
    rates = with_text_rate(config.trainer, config.lora, len(base.parts.towers))
    base = base.with_config(config.with_rates(rates))
    texts = texts_of(folder, config)
    live = config.lora.text
    return LoraTask(base, base.source(folder, texts, live=live), class_source(base, live=live))
