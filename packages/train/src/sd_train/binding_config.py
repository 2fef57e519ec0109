"""The settings of a run of `train-text`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sd_train.config import Count, Settings, TrainerConfig


class TextBindConfig(Settings):
    """Teach a model's text encoder to say of each thing what the words before it say of it.

    `model` is a model's folder, `data` one of captioned pictures, of which the captions alone are
    read. `modifiers` are words that say something of the next thing, such as its colour: `carried`
    of what such a word says goes into the state of the thing's word, and `kept` of it stays.
    `pointers` say how a thing stands to what was said before, such as "under", or how many there
    are: they stay as they are, and `pointed` of what they say goes into the thing's state, too.
    `skipped` are words that may stand before a thing and say nothing, such as "the". Every other
    word ends what is carried on.

    `details` are words of what a thing has, such as "scarf", each told with modifiers and skipped
    words behind one of the `openers` ("with a blue scarf and one ear up"): a word is taught to be
    what it is where no other detail is told and, with `apart`, where the things before it have no
    modifiers. With `carried` 0 and `kept` 1 that is all.

    `holdout` captions, evenly spaced, are kept for validation.
    """

    method: Literal["text_binding"] = "text_binding"
    trainer: TrainerConfig
    model: str
    data: str
    modifiers: tuple[str, ...] = ()
    pointers: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    openers: tuple[str, ...] = ("with", "and")
    apart: bool = False
    carried: Annotated[float, Field(ge=0, le=2)] = 0.7
    pointed: Annotated[float, Field(ge=0, le=2)] = 0.5
    kept: Annotated[float, Field(ge=0, le=1)] = 0.3
    holdout: Count = 256
    export_dtype: Literal["fp16", "bf16", "fp32"] = "fp16"

    @model_validator(mode="after")
    def _says_something(self) -> "TextBindConfig":
        if self.apart and not self.modifiers:
            raise ValueError('apart needs modifiers; name words, such as "red"')
        if not self.modifiers and not self.pointers and not self.details:
            raise ValueError('modifiers, pointers and details are empty; name words, such as "red"')
        if self.details and not self.openers:
            raise ValueError('details need openers; name words, such as "with"')
        return self
