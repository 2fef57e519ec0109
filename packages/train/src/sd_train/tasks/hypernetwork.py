"""Small networks before the keys and values of attention learn, as in AUTOMATIC1111's web UI."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from sd_adapters import Hypernetwork, Origin, save_hypernetwork
from sd_train.finetune_base import Base, open_base, open_pictures
from sd_train.finetune_config import HypernetworkTrainConfig
from sd_train.latents import DenoiserSource
from sd_train.prior import class_source, with_class
from sd_train.reporter import Reporter
from sd_train.seeds import derive_seed
from sd_train.subject import texts_of, with_words
from sd_train.tasks.finetuning import FinetuneTask


class HypernetworkTask(FinetuneTask[HypernetworkTrainConfig]):
    """Trains a hypernetwork."""

    def __init__(
        self,
        base: Base[HypernetworkTrainConfig],
        subject: DenoiserSource,
        prior: DenoiserSource | None,
    ) -> None:
        super().__init__(base, subject, prior)
        settings = base.config.hypernetwork
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(base.config.trainer.seed, "init", 0))
            self.hypernetwork = Hypernetwork.create(
                base.parts.unet, settings.network(), settings.widths or None
            )
        self.hypernetwork.inject(base.parts.unet)

    def modules(self) -> Mapping[str, nn.Module]:
        """Name the hypernetwork."""
        return {"hypernetwork": self.hypernetwork}

    def export(self, folder: Path) -> None:
        """Write the web UI's file, or the same in safetensors."""
        self.hypernetwork.name = self.config.name
        self.hypernetwork.origin = Origin(
            step=self.num_steps,
            sd_checkpoint=self.model_hash()[:10],  # the web UI's own short form
            sd_checkpoint_name=self.model_name(),
        )
        save_hypernetwork(folder / self.config.file_name, self.hypernetwork)


def build_hypernetwork_task(
    config: HypernetworkTrainConfig, run_folder: Path, reporter: Reporter
) -> HypernetworkTask:
    """Load the model, read the pictures and inject a new hypernetwork."""
    base = open_base(config, run_folder, reporter)
    folder = open_pictures(config, reporter)
    encoder = base.parts.text
    config = with_class(with_words(config, encoder, folder), encoder)
    texts = texts_of(folder, config)
    base = base.with_config(config)
    return HypernetworkTask(base, base.source(folder, texts), class_source(base))
