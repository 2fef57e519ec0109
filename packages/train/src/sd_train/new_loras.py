"""New LoRAs for a whole model, and the one file that they become."""

from collections.abc import Mapping
from pathlib import Path

import torch

from sd_adapters import Lora, LoraConfig, paths_by_name, save_diffusers_loras, save_loras
from sd_pipeline import Parts
from sd_pipeline.adapter_places import UNET, adapter_aliases, adapter_models
from sd_train.config import TrainerConfig
from sd_train.finetune_config import LoraSettings
from sd_train.seeds import derive_seed

_CROSS = ("attn2.to_q", "attn2.to_k", "attn2.to_v")
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_TRANSFORMER = (*_ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
_CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "conv")
TARGETS: Mapping[str, tuple[str, ...]] = {
    "attn-kv": _CROSS[1:],
    "attn-cross": _CROSS,
    "attn": _ATTENTION,
    "attn-ff": _TRANSFORMER,
    "all": (*_TRANSFORMER, *_CONVOLUTIONS),
}
_TEXT = ("text_encoder", "text_encoder_2")


def new_loras(parts: Parts, settings: LoraSettings, seed: int) -> dict[str, Lora]:
    """Make LoRAs and inject them: `unet` and, with `settings.text`, the text encoders.

    Raises sd_adapters' AdapterError listing targets that the model does not have; of a preset's
    those count that it has.
    """
    (unet_prefix, unet), *texts = adapter_models(parts).items()
    assert unet_prefix == UNET
    targets = settings.targets
    if isinstance(targets, str):
        paths = paths_by_name(unet, UNET).values()
        targets = tuple(
            each
            for each in TARGETS[targets]
            if any(path == each or path.endswith(f".{each}") for path in paths)
        )
    wanted = {"unet": (UNET, unet, targets)}
    if settings.text:
        named = zip(_TEXT, texts, strict=False)
        wanted |= {name: (prefix, body, settings.text_targets) for name, (prefix, body) in named}
    loras = {}
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "init", 0))
        for name, (prefix, model, ends) in wanted.items():
            loras[name] = Lora.create(model, _config(settings, ends), prefix)
            loras[name].inject(model)
    return loras


def with_text_rate(
    trainer: TrainerConfig, settings: LoraSettings, num_towers: int
) -> dict[str, float]:
    """Return the scales of the learning rate, the text encoders' as the settings have it."""
    scales = dict(trainer.learning_rate_scales)
    if settings.text and settings.text_learning_rate is not None:
        scale = settings.text_learning_rate / trainer.learning_rate
        scales |= dict.fromkeys(_TEXT[:num_towers], scale)
    return scales


def save_new_loras(
    path: Path,
    loras: Mapping[str, Lora],
    parts: Parts,
    settings: LoraSettings,
    metadata: Mapping[str, str],
) -> None:
    """Write the LoRAs of a model into one file, for SDXL under kohya's names of its layers."""
    if settings.layout == "diffusers":
        save_diffusers_loras(path, loras.values(), adapter_models(parts), metadata)
        return
    aliases = adapter_aliases(parts) if parts.family.name == "sdxl" else {}
    save_loras(path, loras.values(), metadata, aliases)


def _config(settings: LoraSettings, targets: tuple[str, ...]) -> LoraConfig:
    return LoraConfig(
        rank=settings.rank,
        alpha=settings.rank if settings.alpha is None else settings.alpha,
        targets=targets,
        kind=settings.kind,
        dora=settings.dora,
        dropout=settings.dropout,
        block_ranks=tuple(settings.block_ranks.items()),
        tucker=settings.tucker,
        factor=settings.factor,
    )
