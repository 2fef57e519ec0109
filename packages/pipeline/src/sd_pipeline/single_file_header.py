"""What a single file of ours states in its header beside the tensors."""

import json
from collections.abc import Mapping
from typing import Any

from sd_checkpoint import CheckpointError
from sd_pipeline.config_types import checked
from sd_pipeline.families import Family
from sd_pipeline.model import Model
from sd_textenc import clip_tokenizer

_CONFIGS = "sd_pipeline.configs"
_STATED = (
    "pad_tokens",
    "scheduler",
    "texts",
    "tokenizers",
    "unet",
    "vae",
    "zeros_for_empty",
)


def header(model: Model) -> dict[str, str]:
    """Return what a single file's header says of `model`: `modelspec` 1.0.1, and our configs.

    The configs are what the file's tensors do not tell, so that it opens as the same model.
    """
    clip = clip_tokenizer().vocab
    tokenizers = {
        str(number): text.tokenizer.files()
        for number, text in enumerate(model.texts)
        if text.tokenizer.vocab != clip  # the table that we have anyway is not written again
    }
    configs = {
        "unet": model.unet.config.to_diffusers(),
        "vae": model.vae.config.to_diffusers(),
        "texts": [text.config.to_diffusers() for text in model.texts],
        "tokenizers": tokenizers,
        "pad_tokens": [text.tokenizer.pad_token for text in model.texts],
        "scheduler": model.scheduler.to_diffusers(),
        "zeros_for_empty": model.zeros_for_empty,
    }
    if model.classes is not None:
        configs["id2label"] = model.classes.id2label()
    side = model.unet.config.sample_size * model.vae.config.downsampling
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": model.family.architecture,
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.prediction_type": "v"
        if model.scheduler.diffusion.prediction == "v"
        else "epsilon",
        "modelspec.resolution": f"{side}x{side}",
        _CONFIGS: json.dumps(configs, separators=(",", ":"), sort_keys=True),
    }


def stated_configs(metadata: Mapping[str, str], family: Family, *, what: str) -> Mapping[str, Any]:
    """Read our configs out of a header, as little trusted as any other file; {} where none are.

    Raises `CheckpointError` for one that is none; `what` names the file there.
    """
    text = metadata.get(_CONFIGS)
    if text is None:
        return {}
    what = f"{what}: the header's {_CONFIGS}"
    try:
        configs = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{what} is not JSON ({error})") from error
    if not isinstance(configs, dict) or not configs.keys() >= set(_STATED):
        raise CheckpointError(f"{what} must hold {', '.join(_STATED)}")
    _check(configs, len(family.towers), what)
    return configs


def _check(configs: Mapping[str, Any], num_towers: int, what: str) -> None:
    for name in ("unet", "vae", "scheduler"):
        checked(configs[name], what=f"{what}, {name}")
    for name in ("texts", "pad_tokens"):
        if not isinstance(configs[name], list) or len(configs[name]) != num_towers:
            raise CheckpointError(f"{what}, {name} must be a list of {num_towers}")
    for config in configs["texts"]:
        checked(config, what=f"{what}, texts")
    texts = list(configs["pad_tokens"])
    for files in _entries(configs["tokenizers"], f"{what}, tokenizers"):
        texts += _entries(files, f"{what}, tokenizers")
    if not all(isinstance(entry, str) for entry in texts):
        raise CheckpointError(f"{what}, pad_tokens and tokenizers must hold texts")
    if not isinstance(configs["zeros_for_empty"], bool):
        raise CheckpointError(f"{what}, zeros_for_empty must be true or false")


def _entries(value: object, what: str) -> list[Any]:
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{what} must be an object")
    return list(value.values())
