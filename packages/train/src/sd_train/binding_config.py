"""The settings of a run of `train-text`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sd_train.config import Count, Settings, TrainerConfig


class TextBindConfig(Settings):
    """Teach a model's text encoder to say of each thing what the words before it say of it.

    `model` is a model's folder, `data` one of captioned pictures, of which the captions alone are
    read. `modifiers` are words that say something of the next one. `carried` of what such a word
    says goes into the state of the next, and `kept` of it stays. `holdout` captions, evenly spaced,
    are kept for validation.
    """

    method: Literal["text_binding"] = "text_binding"
    trainer: TrainerConfig
    model: str
    data: str
    modifiers: tuple[str, ...]
    carried: Annotated[float, Field(ge=0, le=2)] = 0.7
    kept: Annotated[float, Field(ge=0, le=1)] = 0.3
    holdout: Count = 256
    export_dtype: Literal["fp16", "bf16", "fp32"] = "fp16"

    @model_validator(mode="after")
    def _says_something(self) -> "TextBindConfig":
        if not self.modifiers:
            raise ValueError('modifiers is empty; name words such as "red", which say how one is')
        return self
