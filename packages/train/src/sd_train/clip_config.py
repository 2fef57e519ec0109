"""The settings of a run of `train-clip`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sd_train.config import (
    Architecture,
    DataConfig,
    ExportDtype,
    Settings,
    TextSettings,
    TrainerConfig,
)


class ClipTrainConfig(Settings):
    """A run of `train-clip`: a text and an image encoder learn to tell which caption is whose.

    A batch is all that a picture is compared with, so the larger the better; `trainer.accumulate`
    does not make it larger. `text` is as for `train`, with `train = true`, and `image` a preset
    (scenes, vit_l14) with fields of `sd_textenc.CLIPImageConfig`. `embed_dim` is the width that
    they share. `temperature` is where the learnt one begins; it never falls below 0.01.
    """

    method: Literal["clip"] = "clip"
    trainer: TrainerConfig
    data: DataConfig
    text: TextSettings
    image: Architecture = Architecture(preset="scenes")
    embed_dim: Annotated[int, Field(ge=1)] = 256
    temperature: Annotated[float, Field(ge=0.01, le=1)] = 0.07
    export_dtype: ExportDtype = "fp16"

    @model_validator(mode="after")
    def _learns_squares(self) -> "ClipTrainConfig":
        if self.data.buckets:
            raise ValueError("a CLIP learns squares; leave data.buckets out")
        return self

    @model_validator(mode="after")
    def _text_learns(self) -> "ClipTrainConfig":
        if not self.text.train:
            raise ValueError("text.train = false leaves nothing to be told by; set it to true")
        return self
