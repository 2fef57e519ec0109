"""A file that holds an autoencoder in LDM's layout: its architecture, and what is not of it."""

from collections.abc import Mapping
from itertools import count

from torch import Tensor

from sd_checkpoint import only
from sd_vae.config import VAEConfig, VAEError

__all__ = ["config_from_ldm", "without_training"]

# LDM's loss is a module, so the discriminator and the perceptual network are in the file, and so
# are the running averages of all weights.
_TRAINING = ("loss.", "model_ema.")


def config_from_ldm(
    shapes: Mapping[str, tuple[int, ...]],
    *,
    scaling_factor: float,
    sample_size: int,
    norm_num_groups: int = 32,
) -> VAEConfig:
    """Return the architecture of the shapes below `first_stage_model.`.

    No shape shows the keyword arguments, nor `force_upcast`, which is False here, True for SDXL.
    Raises `VAEError` when the keys are of no autoencoder that can be built here.
    """
    widths: list[int] = []
    numbers: set[int] = set()
    for level in count():
        blocks = f"encoder.down.{level}.block"
        if f"{blocks}.0.conv1.weight" not in shapes:
            break
        widths.append(shapes[f"{blocks}.0.conv1.weight"][0])
        layers = (f"{blocks}.{number}.conv1.weight" for number in count())
        numbers.add(next(number for number, layer in enumerate(layers) if layer not in shapes))
    if len(numbers) > 1:
        raise VAEError(
            f"an autoencoder of {sorted(numbers)} layers a block is not built here; "
            "all blocks must have equally many"
        )
    return VAEConfig(
        in_channels=_shape(shapes, "encoder.conv_in.weight")[1],
        out_channels=_shape(shapes, "decoder.conv_out.weight")[0],
        latent_channels=_shape(shapes, "post_quant_conv.weight")[0],
        block_out_channels=tuple(widths),
        layers_per_block=max(numbers, default=0),
        norm_num_groups=norm_num_groups,
        scaling_factor=scaling_factor,
        sample_size=sample_size,
        mid_block_add_attention="encoder.mid.attn_1.q.weight" in shapes,
    )


def without_training(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """View a stand-alone autoencoder's file (`.vae.pt`) without what only trained it.

    Such files have no prefix before the network's keys, and often `loss.*` and `model_ema.*`
    beside them. Any other key stays, for the key map to refuse. Tensors are read when asked for.
    """
    return only(tensors, (key for key in tensors if not key.startswith(_TRAINING)))


def _shape(shapes: Mapping[str, tuple[int, ...]], key: str) -> tuple[int, ...]:
    if key not in shapes:
        raise VAEError(
            f"these keys are of no autoencoder in LDM's layout, for {key} is absent; "
            "give those below `first_stage_model.`, or those of a stand-alone file"
        )
    return shapes[key]
