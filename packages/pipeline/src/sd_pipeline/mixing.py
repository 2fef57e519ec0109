"""One model between two of the same architecture."""

from collections.abc import Collection

import torch
from torch import nn

from sd_pipeline.errors import PipelineError
from sd_pipeline.parts import Parts

NETWORKS = ("unet", "vae", "text_encoder")


@torch.no_grad()
def mix_models(
    first: Parts, second: Parts, share: float = 0.5, only: Collection[str] = NETWORKS
) -> None:
    """Move the weights of `first` towards those of `second`: w1 + share * (w2 - w1), in place.

    Those of the networks that `only` names, as `Parts` does; others stay.

    Of two that were learnt on from the same weights the middle is often better than either
    (Wortsman et al., "Model soups", arXiv:2203.05482). Where weights are equal they stay as they
    are, to the bit. Raises PipelineError, and changes nothing, for a `share` outside [0, 1], for
    another name, and for models whose weights differ in name or shape.
    """
    if not 0 <= share <= 1:
        raise PipelineError(f"a share of {share} of the second model is none; choose 0 to 1")
    for name in only:
        if name not in NETWORKS:
            raise PipelineError(f"there is no network {name!r}; choose {', '.join(NETWORKS)}")
    if "text_encoder" in only and (first.text_encoder is None) != (second.text_encoder is None):
        raise PipelineError("one model has a text encoder and the other none; mix two of a kind")
    both = [(getattr(first, name), getattr(second, name)) for name in only]
    pairs = [(one, other) for one, other in both if one is not None]
    for one, other in pairs:
        _require_alike(one, other)
    for one, other in pairs:
        weights = other.state_dict()
        for name, weight in one.state_dict().items():
            if weight.is_floating_point():
                weight.lerp_(weights[name].to(weight), share)


def _require_alike(one: nn.Module, other: nn.Module) -> None:
    shapes, others = (
        {name: tuple(weight.shape) for name, weight in each.state_dict().items()}
        for each in (one, other)
    )
    unlike = sorted(name for name in shapes | others if shapes.get(name) != others.get(name))
    if unlike:
        raise PipelineError(
            f"the models' {type(one).__name__}s differ in {len(unlike)} weights, such as "
            f"{unlike[0]}; mix models of the same architecture"
        )
