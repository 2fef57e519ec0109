"""Captions made of tags: the order in which they are learnt."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class TagOrder:
    """What of a caption's tags moves: none, or all behind the first `keep_tokens`.

    `separator` stands between tags. With `keep_separator`, such as "|||", a caption that has it
    says itself what stays: all before the first and all behind the second one.
    """

    shuffle: bool = False
    keep_tokens: int = 0
    separator: str = ","
    keep_separator: str = ""


AS_WRITTEN = TagOrder()


def shuffled(caption: str, order: TagOrder, generator: torch.Generator) -> str:
    """Return a caption with its movable tags in an order drawn from `generator`.

    Equal generators give equal orders, and a caption of which nothing moves draws nothing. The
    rules are those of kohya's sd-scripts (`shuffle_caption`, `keep_tokens`).
    """
    if not order.shuffle:
        return caption
    first, middle, last = _parts(caption, order)
    if len(middle) > 1:
        middle = [middle[i] for i in torch.randperm(len(middle), generator=generator).tolist()]
    return f"{order.separator} ".join([*first, *middle, *last])


def in_orders(
    caption: str, order: TagOrder, num_orders: int, generator: torch.Generator
) -> list[str]:
    """Return a caption as it is written, and after it with its tags in other orders.

    They are `num_orders` in all, some equal where there are few tags.
    """
    others = (shuffled(caption, order, generator) for _ in range(num_orders - 1))
    return [caption, *others]


def _parts(caption: str, order: TagOrder) -> tuple[list[str], list[str], list[str]]:
    if order.keep_separator and order.keep_separator in caption:
        pieces = caption.split(order.keep_separator, 2)
        first, middle, last = (_tags(piece, order) for piece in [*pieces, ""][:3])
        return first, middle, last
    tags = _tags(caption, order)
    return tags[: order.keep_tokens], tags[order.keep_tokens :], []


def _tags(text: str, order: TagOrder) -> list[str]:
    tags = (tag.strip() for tag in text.split(order.separator))
    return [tag for tag in tags if tag]
