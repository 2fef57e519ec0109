"""What a network is told beside latents and time, checked; and how it is told a class."""

from typing import Protocol

from torch import Tensor, nn

from sd_unet.batches import as_many
from sd_unet.errors import UNetInputError
from sd_unet.timestep import TimestepEmbedding, sinusoidal_embedding

_CLASS_STD = 0.02  # of DiT (arXiv:2212.09748): torch's own 1 would drown the time


class ToldConfig(Protocol):
    """What of a network's config says what it is told."""

    @property
    def takes_text(self) -> bool:
        """Whether it hears a text."""

    @property
    def takes_classes(self) -> bool:
        """Whether it is told a class."""


def check_told(
    config: ToldConfig, latents: Tensor, hidden_states: Tensor | None, class_labels: Tensor | None
) -> None:
    """Raise ``UNetInputError`` unless texts and classes are those that the network takes.

    There are as many of each as latents, or several times as many, and as many classes as texts.
    """
    for name, many, takes, told in (
        ("hidden_states", "texts", config.takes_text, hidden_states),
        ("class_labels", "classes", config.takes_classes, class_labels),
    ):
        if takes and told is None:
            raise UNetInputError(f"this network is told {many}: give `{name}`")
        if told is not None and not takes:
            raise UNetInputError(f"this network is told no {many}: leave `{name}` out")
        if told is not None and len(told) % len(latents):
            raise UNetInputError(
                f"{len(told)} {many} do not go with {len(latents)} latents: "
                f"give as many {many}, or several times as many"
            )
    if hidden_states is None or class_labels is None:
        return
    if len(hidden_states) != len(class_labels):
        raise UNetInputError(
            f"{len(class_labels)} classes do not go with {len(hidden_states)} texts: "
            "give a class for each text"
        )


def new_class_table(num_embeds: int, embed_dim: int) -> nn.Embedding:
    """Return the embeddings of classes, by convention the last one that of no class."""
    table = nn.Embedding(num_embeds, embed_dim)
    nn.init.normal_(table.weight, std=_CLASS_STD)
    return table


def with_classes(
    time_embedding: Tensor, embedding: nn.Module | None, class_labels: Tensor | None
) -> Tensor:
    """Add to the time (B, D) what is made of classes: numbers (R * B,), or vectors (R * B, D).

    Numbers are looked up in a table, or embedded as a time is. Returns (R * B, D).
    """
    if embedding is None or class_labels is None:
        return time_embedding
    if isinstance(embedding, TimestepEmbedding):
        channels = embedding.linear_1.in_features
        class_labels = sinusoidal_embedding(class_labels, channels).to(time_embedding.dtype)
    embedded: Tensor = embedding(class_labels).to(time_embedding.dtype)
    return as_many(time_embedding, embedded) + embedded
