"""A new word's vectors learn what some pictures show (Gal et al., arXiv:2208.01618)."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from sd_adapters import Embedding, Origin, TextualInversion, save_embedding
from sd_textenc import TextEncoder, TextTower
from sd_train.data import PictureFolder
from sd_train.describing import describe_subject
from sd_train.errors import TrainError
from sd_train.finetune_base import Base, open_base, open_pictures
from sd_train.finetune_config import TextualInversionConfig
from sd_train.latents import DenoiserSource
from sd_train.reporter import Reporter
from sd_train.subject import exchanged, knows, noun_of, own_caption, templates_known, with_words
from sd_train.tasks.finetuning import FinetuneTask

_TEMPLATES: Mapping[str, Sequence[str]] = {
    "object": (
        "a {}",
        "the {}",
        "a photo of a {}",
        "a photo of the {}",
        "a picture of a {}",
        "a close photo of a {}",
        "a bright photo of the {}",
        "one {}",
    ),
    "style": (
        "in the style of {}",
        "a picture in the style of {}",
        "a painting in the style of {}",
        "a drawing in the style of {}",
        "a landscape in the style of {}",
        "a portrait in the style of {}",
        "{}",
    ),
}
_NAMES = ("text_encoder", "text_encoder_2")


class TextualInversionTask(FinetuneTask[TextualInversionConfig]):
    """Trains the vectors of a name, a set for each text encoder; all else stays as it is."""

    def __init__(
        self,
        base: Base[TextualInversionConfig],
        subject: DenoiserSource,
        inversions: Mapping[str, TextualInversion],
    ) -> None:
        # Injected already: before anything is learnt they are the initial word.
        self.inversions = inversions
        super().__init__(base, subject)

    def modules(self) -> Mapping[str, nn.Module]:
        """Name the vectors by the text encoders that have them."""
        return self.inversions

    def export(self, folder: Path) -> None:
        """Write an embedding's file."""
        embedding = Embedding(
            name=self.config.placeholder,
            vectors=tuple(each.vectors.detach() for each in self.inversions.values()),
            origin=Origin(
                step=self.num_steps,
                sd_checkpoint=self.model_hash()[:10],  # the web UI's own short form
                sd_checkpoint_name=self.model_name(),
            ),
        )
        save_embedding(folder / self.config.file_name, embedding, self.config.layout)


def build_textual_inversion_task(
    config: TextualInversionConfig, run_folder: Path, reporter: Reporter
) -> TextualInversionTask:
    """Load the model, give its text encoders a new word and read the pictures."""
    base = open_base(config, run_folder, reporter)
    encoder = base.parts.text
    folder = open_pictures(config, reporter)
    noun = config.noun or noun_of(folder, encoder)
    placeholder = config.placeholder or f"my-{noun or 'subject'}"
    config = config.model_copy(update={"noun": noun, "placeholder": placeholder})
    update = {
        "initial": config.initial or _described(base.with_config(config), folder) or "a",
        "name": config.name or re.sub(r"[^\w-]+", "", placeholder) or "embedding",
    }
    config = config.model_copy(update=update)
    inversions = _new_words(base.parts.towers, config)
    config = with_words(config, encoder, folder, subject=placeholder)
    texts = _texts(folder, config, encoder)
    base = base.with_config(config)
    return TextualInversionTask(base, base.source(folder, texts, live=True), inversions)


def _described(base: Base[TextualInversionConfig], folder: PictureFolder) -> str:
    """Return the noun, with words that fit where there are some to choose from."""
    config, words = base.config, base.config.described.words()
    if not config.noun or not words:
        return config.noun
    if unknown := base.parts.text.check(" ".join(words)).unknown:
        raise TrainError(
            f"described has {unknown[0]!r}, which is no word that the model knows; leave it out"
        )

    def captions(text: str) -> list[str]:
        said = [_named(own_caption(entry), config) for entry in folder.entries]
        if text[0] in "aeiou":
            said = [each.replace(f"a {config.placeholder}", f"an {text}") for each in said]
        return [each.replace(config.placeholder, text) for each in said]

    return describe_subject(base, folder, captions)


def _new_words(
    towers: Sequence[TextTower], config: TextualInversionConfig
) -> dict[str, TextualInversion]:
    """Teach each tower's tokenizer the placeholder, and its embedding the rows."""
    inversions = {}
    for name, tower in zip(_NAMES, towers, strict=False):
        inversion = TextualInversion(
            _initial_vectors(tower, config), tower.tokenizer.next_id(tower.config.vocab_size)
        )
        inversion.inject(tower)
        tower.tokenizer = tower.tokenizer.with_names({config.placeholder: inversion.ids})
        inversions[name] = inversion
    return inversions


def _initial_vectors(tower: TextTower, config: TextualInversionConfig) -> Tensor:
    """Return the vectors (n, D) of the initial words, and of what fills up the rest."""
    ids = tower.tokenizer.tokenize(config.initial)
    if not ids or not knows(tower, config.initial):
        raise TrainError(
            f"initial = {config.initial!r} is no word that the model knows; give one for what the "
            "pictures show"
        )
    (table,) = (
        module
        for path, module in tower.named_modules()
        if path.endswith("token_embedding") and isinstance(module, nn.Embedding)
    )
    count = config.num_vectors or len(ids)
    if config.filler == "end":
        ids = [*[tower.tokenizer.eos_token_id] * (count - len(ids)), *ids]
    rows = torch.tensor([ids[i % len(ids)] for i in range(count)])
    return table.weight.detach()[rows.to(table.weight.device)].float()


def _texts(
    folder: PictureFolder, config: TextualInversionConfig, encoder: TextEncoder
) -> list[list[str]]:
    """Return the sentences for each picture."""
    if config.templates != "captions":
        known = templates_known(encoder, _TEMPLATES[config.templates])
        sentences = [template.replace("{}", config.placeholder) for template in known]
        return [sentences for _ in folder.entries]
    captions = [_named(own_caption(entry), config) for entry in folder.entries]
    return folder.in_orders(captions, config.trainer.seed)


def _named(caption: str, config: TextualInversionConfig) -> str:
    """Return a caption that has the placeholder, in the initial word's place or the noun's."""
    if config.placeholder in caption:
        return caption
    for word in (config.initial, config.noun):
        if named := exchanged(caption, word, config.placeholder):
            return named
    return f"a {config.placeholder}"
