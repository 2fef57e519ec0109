"""What the subject of some pictures is called, and what is said of it in words a model knows."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from sd_textenc import TextEncoder
from sd_train.data import PictureFolder
from sd_train.entries import Entry
from sd_train.finetune_config import FinetuneConfig

ConfigT = TypeVar("ConfigT", bound=FinetuneConfig)

_PHOTO, _PLAIN = "a photo of", "a"
_PLACES = (
    "on a red mat",
    "on the grass",
    "on the sand",
    "in the snow",
    "under a tree",
    "on the road",
)
# Words that say nothing of what pictures show, in captions and in the names of folders.
_NO_NOUNS = frozenset(
    (
        *("a", "an", "the", "of", "on", "in", "at", "to", "by", "with", "and", "is", "it", "this"),
        *("one", "under", "over", "near", "my", "new", "tmp", "shard", "shards"),
        *("data", "dataset", "folder", "set", "input", "instance", "train", "training", "test"),
        *("image", "images", "img", "imgs", "photo", "photos", "pic", "pics", "picture"),
        *("pictures", "view", "views", "photograph"),
    )
)


def with_words(
    config: ConfigT, encoder: TextEncoder, folder: PictureFolder, subject: str = ""
) -> ConfigT:
    """Return the settings with all words chosen: noun, instance prompt, name, sample prompts.

    `subject` is what the prompts call it, by default the identifier and the noun.
    """
    noun = config.noun or noun_of(folder, encoder)
    subject = subject or f"{config.identifier} {noun}".strip()
    photo = _PHOTO if knows(encoder, _PHOTO) else _PLAIN
    prompt = config.instance_prompt or f"{photo} {subject}"
    samples = config.samples
    if not samples.prompts:
        prompts = (prompt, *in_places(encoder, prompt, samples.count))[: samples.count]
        samples = samples.model_copy(update={"prompts": prompts})
    return config.model_copy(
        update={
            "noun": noun,
            "instance_prompt": prompt,
            "name": config.name or noun or "subject",
            "samples": samples,
        }
    )


def class_prompt_of(config: FinetuneConfig, encoder: TextEncoder) -> str:
    """Return the instance prompt's class: without the identifier, or of the noun alone."""
    photo = _PHOTO if knows(encoder, _PHOTO) else _PLAIN
    chosen = config.instance_prompt != f"{photo} {config.identifier} {config.noun}".strip()
    if chosen and config.identifier in config.instance_prompt.split():
        return class_words(config.instance_prompt, config)
    if not config.noun:
        return photo.removesuffix(" of") if photo == _PHOTO else ""
    article = "an" if config.noun[0] in "aeiou" else "a"
    return f"{photo} {article} {config.noun}" if photo == _PHOTO else f"{article} {config.noun}"


def class_words(prompt: str, config: FinetuneConfig) -> str:
    """Return a prompt of the subject as one of its class: without its name."""
    placeholder = getattr(config, "placeholder", "")
    if placeholder:
        return prompt.replace(placeholder, config.noun)
    return " ".join(word for word in prompt.split() if word != config.identifier)


def in_places(encoder: TextEncoder, prompt: str, count: int) -> list[str]:
    """Return `count` prompts that put what a prompt is of somewhere, as far as the model knows."""
    places = [place for place in _PLACES if knows(encoder, place)] or [""]
    return [f"{prompt} {places[i % len(places)]}".strip() for i in range(count)]


def texts_of(folder: PictureFolder, config: FinetuneConfig) -> list[list[str]]:
    """Return a caption for every picture of a folder, as `config.captions` says, in its orders."""
    captions = [_caption(entry, config) for entry in folder.entries]
    return folder.in_orders(captions, config.trainer.seed)


def own_caption(entry: Entry) -> str:
    """Return the caption that someone wrote for a picture, or nothing: a file's name is none."""
    return "" if entry.caption_from == "name" else entry.caption


def exchanged(caption: str, word: str, other: str) -> str:
    """Put other words in the place of a word where a caption has it first, or return nothing."""
    if not word:
        return ""
    there = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
    changed, count = there.subn(lambda _: other, caption, count=1)
    return changed if count else ""


def knows(encoder: TextEncoder, text: str) -> bool:
    """Tell whether a model knows all words of a text."""
    return not encoder.check(text).unknown


def templates_known(encoder: TextEncoder, templates: Sequence[str]) -> list[str]:
    """Return the templates, {} in each, whose words a model knows; a bare {} if there is none."""
    return [each for each in templates if knows(encoder, each.replace("{}", ""))] or ["{}"]


def noun_of(folder: PictureFolder, encoder: TextEncoder) -> str:
    """Guess what the pictures show, or return nothing.

    By the first word that all captions have and the model has a token for, else by the name of the
    folder.
    """
    captions = [_words(own_caption(entry)) for entry in folder.entries]
    shared = [word for word in captions[0] if all(word in words for words in captions)]
    named = reversed(_words(Path(folder.config.folder).resolve().stem))
    for word in (*(word for word in shared if encoder.check(word).num_tokens == 1), *named):
        if word not in _NO_NOUNS and knows(encoder, word):
            return word
    return ""


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


def _caption(entry: Entry, config: FinetuneConfig) -> str:
    own = own_caption(entry)
    named = config.identifier in own.split()
    if config.captions == "own" or (config.captions == "subject" and named):
        return own or config.instance_prompt
    if config.captions == "subject":
        subject = f"{config.identifier} {config.noun}"
        return exchanged(own, config.noun, subject) or config.instance_prompt
    return config.instance_prompt
