"""Steps that compute the finest level alone, and take the rest from a step before them."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from torch import Tensor

from sd_unet.backbones import Backbone
from sd_unet.errors import UNetInputError
from sd_unet.unet import UNet


@contextmanager
def features_reused(unet: Backbone) -> Iterator["FeatureReuse"]:
    """Let a UNet take up what its levels below the finest gave before, as long as this lasts.

    Ma et al., "DeepCache", arXiv:2312.00858, section 3.2: from step to step the features of the
    depth hardly change. Not exact, and wrong where the text changes: what is yielded says when to
    compute anew, which is at first always. Raises ``UNetInputError`` for a network of no levels.
    """
    if not isinstance(unet, UNet):
        raise UNetInputError(
            "features can be used again in a UNet alone, for a DiT has one level: "
            "leave --reuse-features out"
        )
    reuse = FeatureReuse(unet)
    unet.below = reuse
    try:
        yield reuse
    finally:
        unet.below = None


class FeatureReuse:
    """Give what the levels below the finest gave to the same question, unless told ``anew``.

    A ``question`` tells calls apart that are about other pictures or texts.
    """

    def __init__(self, unet: UNet) -> None:
        self.anew = True
        self.question: Hashable = None
        self._unet = unet
        self._kept: dict[Hashable, Tensor] = {}

    def __call__(
        self, x: Tensor, time_embedding: Tensor, hidden_states: Tensor | None, skips: list[Tensor]
    ) -> Tensor:
        """Return what comes up to the finest level, leaving ``skips`` with that level's own."""
        found = self._kept.get(self.question)
        if found is None or self.anew:
            found = self._unet.through_below(x, time_embedding, hidden_states, skips)
            self._kept[self.question] = found
        del skips[1 + self._unet.config.layers_per_block :]
        return found
