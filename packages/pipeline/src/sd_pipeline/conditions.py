"""What the UNet is told beside latents and time: text, sizes, and the channels of some variants."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sd_pipeline.errors import PipelineError
from sd_pipeline.parts import Parts
from sd_pipeline.record import Record
from sd_sampler import NoiseSource
from sd_unet import AddedConditions

# The refiner's own defaults (arXiv:2307.01952): what a picture should and should not look like.
_AESTHETIC_SCORE, _NEGATIVE_AESTHETIC_SCORE = 6.0, 2.5
_NUM_SIZES = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """Hold the text's states (B, T, D) and, where the UNet takes them, pooled text and sizes."""

    hidden_states: Tensor
    added: AddedConditions | None

    def repeated(self, times: int) -> "Conditions":
        """Return every row `times` times, one after the other."""
        added = self.added
        if added is not None:
            added = AddedConditions(
                pooled=added.pooled.repeat_interleave(times, dim=0),
                sizes=added.sizes.repeat_interleave(times, dim=0),
            )
        states = self.hidden_states.repeat_interleave(times, dim=0)
        return Conditions(hidden_states=states, added=added)


def conditions(parts: Parts, record: Record, *, guided: bool, dtype: torch.dtype) -> Conditions:
    """Encode a record's prompts: the negative one first where there is guidance, then the prompt.

    Without a negative prompt a model of `zeros_for_empty` gets zeros in its place (SDXL).
    """
    prompts = [record.negative_prompt, record.prompt] if guided else [record.prompt]
    encoded = parts.text_encoder.encode(prompts)
    states, pooled = encoded.hidden_states.to(dtype), encoded.pooled
    if guided and parts.zeros_for_empty and not record.negative_prompt:
        states = _first_zeroed(states)
        pooled = None if pooled is None else _first_zeroed(pooled)
    if parts.unet.config.projection_input_dim is None:
        return Conditions(hidden_states=states, added=None)
    assert pooled is not None
    num_sizes = parts.unet.config.num_sizes(pooled.shape[-1])
    sizes = [_sizes(record, num_sizes, negative=guided and row == 0) for row in range(len(prompts))]
    added = AddedConditions(
        pooled=pooled.to(dtype), sizes=torch.tensor(sizes, device=states.device)
    )
    return Conditions(hidden_states=states, added=added)


def extra_channels(
    parts: Parts, shape: tuple[int, ...], noise: NoiseSource, dtype: torch.dtype
) -> Tensor | None:
    """Return what an inpainting UNet wants to see for a whole new picture, None for a plain one.

    That is a mask over everything and the latents of the picture with the masked part made grey,
    (B, 1 + C, h, w); they are sampled with the next noise of each picture, as diffusers does.
    Raises `PipelineError` for models that need a picture to begin with.
    """
    if parts.task == "txt2img":
        return None
    if parts.task != "inpaint":
        raise PipelineError(
            f"this model edits a picture by its own channels ({parts.task}), and txt2img has none "
            "to give it; use a plain model"
        )
    vae = parts.vae
    factor = vae.config.downsampling
    grey = torch.zeros(
        (shape[0], vae.config.in_channels, shape[2] * factor, shape[3] * factor),
        device=vae.post_quant_conv.weight.device,
        dtype=vae.post_quant_conv.weight.dtype,
    )
    posterior = vae.encode(grey)
    masked = vae.scale(posterior.mean + posterior.std * noise().to(posterior.mean))
    mask = torch.ones_like(masked[:, :1])
    return torch.cat([mask, masked], dim=1).to(dtype)


def _first_zeroed(values: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(values[:1]), values[1:]])


def _sizes(record: Record, number: int, *, negative: bool) -> Sequence[float]:
    """Return SDXL's sizes: as large as is drawn, not cropped; or the refiner's, with its score."""
    size = (float(record.height), float(record.width))
    if number == _NUM_SIZES:
        return (*size, 0.0, 0.0, *size)
    return (*size, 0.0, 0.0, _NEGATIVE_AESTHETIC_SCORE if negative else _AESTHETIC_SCORE)
