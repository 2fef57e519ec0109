"""Settings that suit a model and 3 to 20 pictures, for whoever leaves them open."""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch

from sd_pipeline import Model, locate, open_model
from sd_train.data_check import find_pictures
from sd_train.errors import TrainError
from sd_train.finetune_config import DescribedSettings, FinetuneConfig
from sd_train.precision import resolve_device
from sd_train.settings import parse_config

ConfigT = TypeVar("ConfigT", bound=FinetuneConfig)
Values = dict[str, Any]

_HELD_OUT = 8  # of so many pictures one is held out
_SHORT = 32
_SAMPLES = 4

# The embedded model's captions name a thing's kind, and others of that kind shall stay as they are.
_SUBJECT: Values = {"captions": "subject"}
# Of the class alone the mats took the colour of the rug in the subject's picture.
_NAMES = (
    *("red", "green", "blue", "yellow", "orange", "purple", "pink", "brown"),
    *("black", "white", "grey"),
)
_COLOURS = f"{{{'|'.join(_NAMES)}}}"
_MAT = f"on a {_COLOURS} {{mat|rug}}"
_OTHERS = f"on the {{grass|sand|road}}|in the snow|next to a {_COLOURS} {{ball|car|flower}}"
_KEPT: Values = {
    "prior_weight": 1.0,
    "num_class_images": 64,
    "class_places": f"{{{_MAT}|{{{_OTHERS}}}}}",
}
_COSINE: Values = {"lr_schedule": "cosine", "lr_final": 0.1}


def _loop(steps: int, learning_rate: float, batch_size: int = 1, **more: object) -> Values:
    trainer = {"steps": steps, "learning_rate": learning_rate, "batch_size": batch_size}
    return {"trainer": {**_COSINE, **trainer, "validate_every": steps // 5, **more}}


_LORA: Mapping[str, Values] = {
    "scenes": {
        **_loop(400, 1e-3, 4),
        "lora": {"rank": 16, "targets": "all"},
        **_SUBJECT,
        **_KEPT,
    },
    "sd1": {**_loop(1000, 1e-4), "lora": {"rank": 16, "targets": "attn-ff"}},
    "sd2": {**_loop(1000, 1e-4), "lora": {"rank": 16, "targets": "attn-ff"}},
    "sdxl": {**_loop(800, 1e-4), "lora": {"rank": 16}, "gradient_checkpointing": True},
}
_INVERSION: Mapping[str, Values] = {
    # The embedded model's words say one colour of a thing, and one vector cannot say a patched dog:
    # on views of Rex that were held out the loss, 0.362 of "a dog", was 0.315 with one, 0.306 with
    # four and 0.304 with these. Fillers that begin as the end of a prompt keep the dog a dog for
    # longer than the word over again. What is learnt lies far from words, and guidance overdoes it.
    "scenes": {
        **_loop(500, 1e-2, 5, weight_decay=0.0),
        "num_vectors": 12,
        "filler": "end",
        "templates": "captions",
        "objective": {"timesteps": "antithetic"},
        "samples": {"guidance_scale": 2.0},
    },
    # Begun as a description in its own words ("white dog with brown patches and a green scarf") it
    # is a dog like that one from the first step, and few small steps keep it in every place. 600 at
    # five times the rate put the colour of the one rug that was seen onto every mat.
    "described": {
        "described": {
            "adjectives": _NAMES,
            "details": (
                tuple(f"{name} patches" for name in _NAMES),
                tuple(f"{'an' if name == 'orange' else 'a'} {name} scarf" for name in _NAMES),
                ("one ear up",),
            ),
        },
        **_loop(100, 2e-3, 5, weight_decay=0.0),
        "templates": "captions",
        "objective": {"timesteps": "antithetic"},
        "samples": {"guidance_scale": 4.0},
    },
    "sd1": {**_loop(2000, 5e-3, weight_decay=0.0), "num_vectors": 4},
    "sd2": {**_loop(2000, 5e-3, weight_decay=0.0), "num_vectors": 4},
    "sdxl": {
        **_loop(2000, 5e-3, weight_decay=0.0),
        "num_vectors": 4,
        "gradient_checkpointing": True,
    },
}
_HYPERNETWORK: Mapping[str, Values] = {
    "scenes": {**_loop(800, 5e-4, 4), **_SUBJECT, **_KEPT},
    "sd1": _loop(3000, 2e-5),
    "sd2": _loop(3000, 2e-5),
    "sdxl": {**_loop(3000, 2e-5), "gradient_checkpointing": True},
}
_DREAMBOOTH: Mapping[str, Values] = {
    "scenes": {**_loop(400, 1e-4, 4), **_KEPT},
    "sd1": {**_loop(800, 2e-6), "train_text": True, "gradient_checkpointing": True},
    "sd2": {**_loop(800, 2e-6), "train_text": True, "gradient_checkpointing": True},
    # All of SDXL's weights, their gradients and moments are more than most cards hold.
    "sdxl": {**_loop(800, 1e-4), "lora": {"rank": 16}, "gradient_checkpointing": True},
}
PRESETS: Mapping[str, Mapping[str, Values]] = {
    "lora": _LORA,
    "textual_inversion": _INVERSION,
    "hypernetwork": _HYPERNETWORK,
    "dreambooth": _DREAMBOOTH,
}


def finetune_config(kind: type[ConfigT], values: Mapping[str, Any], *, origin: str) -> ConfigT:
    """Read settings; what they leave open is the preset's for the method, model and pictures.

    `origin` says in errors where the settings stand. Raises TrainError for a mistake in them, and
    what `locate` and `open_model` raise.
    """
    data = values.get("data")
    if not values.get("model") or not isinstance(data, dict) or not data.get("folder"):
        return parse_config(kind, values, origin=origin)  # says what is missing
    model = open_model(locate(str(values["model"])))
    method, line = str(kind.model_fields["method"].default), _line_of(model)
    if method == "textual_inversion" and line == "scenes" and _describes(model, values):
        line = "described"
    preset = PRESETS[method][line]
    if method == "dreambooth" and "lora" in values:
        whole = {name: value for name, value in preset.items() if name != "train_text"}
        preset = _merged(whole, _LORA[line])
    if values.get("class_prompt") and "class_places" in preset:
        preset = _merged(preset, {"class_places": ""})  # whoever words it says where they are
    return parse_config(
        kind, _merged(_merged(_common(model, values), preset), values), origin=origin
    )


def _line_of(model: Model) -> str:
    """Name the line of the tables that is for a model."""
    if model.texts and model.texts[0].tokenizer.closed:
        return "scenes"
    if model.family.name not in _LORA:
        raise TrainError(
            f"the model is {model.family.title}, which cannot be finetuned here; take one of "
            "Stable Diffusion 1.x, 2.x or XL's base"
        )
    return model.family.name


def _describes(model: Model, values: Mapping[str, Any]) -> bool:
    """Tell whether a new word begins as a description: a given one, or of words that are known.

    So many vectors as are asked for have no room for one.
    """
    if values.get("num_vectors"):
        return False
    if initial := str(values.get("initial", "")):
        return len(initial.split()) > 1
    offered = DescribedSettings.model_validate(_INVERSION["described"]["described"])
    return not model.texts[0].tokenizer.check(" ".join(offered.words())).unknown


def _common(model: Model, values: Mapping[str, Any]) -> Values:
    """Return what depends on the model's size, the pictures' number and the machine alone."""
    trainer = values.get("trainer", {})
    told = trainer.get("device", "auto") if isinstance(trainer, dict) else "auto"
    on_cpu = resolve_device(str(told)).type == "cpu"
    half = "bf16" if not on_cpu and torch.cuda.is_bf16_supported() else "fp16"
    count = len(find_pictures(values["data"]["folder"]).entries)
    factor = model.vae.config.downsampling
    common: Values = {
        "trainer": {"precision": "fp32" if on_cpu else half, "channels_last": not on_cpu},
        "data": {
            "size": model.unet.config.sample_size * factor,
            "holdout": count // _HELD_OUT,
        },
        "samples": {"count": _SAMPLES},
    }
    # On a CPU the backward pass of torch's own attention is slow for short sequences.
    short = on_cpu and model.unet.config.sample_size <= _SHORT
    return {**common, "attention": "chunked"} if short else common


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Values:
    """Lay tables over tables; a value replaces what stood there."""
    whole = dict(below)
    for name, value in above.items():
        under = whole.get(name)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        whole[name] = _merged(under, value) if both else value  # type: ignore[arg-type]
    return whole
