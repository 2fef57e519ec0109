"""The settings of the finetuners, as people write them in TOML."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from sd_adapters import HypernetworkConfig
from sd_train.config import (
    AtLeastOne,
    Count,
    DataConfig,
    Fraction,
    SampleSettings,
    Settings,
    TrainerConfig,
    WeightingSettings,
)

Positive = Annotated[float, Field(gt=0)]
LoraTargets = Literal["attn-kv", "attn-cross", "attn", "attn-ff", "all"]
CaptionUse = Literal["own", "subject", "prompt"]
_NOT_IN_FILES = '/\\:*?"<>|'


class FinetuneTrainerConfig(TrainerConfig):
    """The loop, with defaults for few pictures: no averaging, and a look now and then."""

    batch_size: AtLeastOne = 1
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    save_every: Count = 500
    validate_every: Count = 250
    log_every: AtLeastOne = 10


class FinetuneDataConfig(DataConfig):
    """The pictures, with defaults for few of them: none is held out, no caption is dropped."""

    caption_dropout: Fraction = 0.0
    holdout: Count = 0

    @field_validator("crop")
    @classmethod
    def _no_crop(cls, crop: int) -> int:
        if crop:
            raise ValueError("finetuning sees whole squares; leave it at 0 and set data.size")
        return crop


class FinetuneConfig(Settings):
    """What all finetuners are told.

    `model` is a folder in the diffusers layout, a single file or a model of the Hub; what it
    predicts, and from which noise, is its own affair. `name` is what comes out is called.

    `identifier` and `noun` make the subject, "sks dog", and `instance_prompt` is of it. With
    `captions` "own" it serves the pictures that have no caption; with "prompt" it serves all; with
    "subject" a caption that has the noun gets the subject in its place, and others the prompt.
    What is empty is chosen: the noun from the name of the folder, the prompt by words that the
    model knows.

    With `clip`, a CLIP that `train-clip` made, a validation tells how like the subject its pictures
    are, and how far they keep to their prompts.
    """

    model: str
    trainer: FinetuneTrainerConfig
    data: FinetuneDataConfig
    name: str = ""
    identifier: str = "sks"
    noun: str = ""
    instance_prompt: str = ""
    captions: CaptionUse = "own"
    objective: WeightingSettings = WeightingSettings()
    samples: SampleSettings = SampleSettings(count=4)
    sample_posterior: bool = True
    gradient_checkpointing: bool = False
    attention: str = "auto"
    clip: str = ""

    @field_validator("name")
    @classmethod
    def _name_is_a_file(cls, name: str) -> str:
        if name.startswith(".") or set(name) & set(_NOT_IN_FILES):
            raise ValueError(f"files are called so; leave out dots in front and {_NOT_IN_FILES}")
        return name

    @model_validator(mode="after")
    def _clip_has_something_to_see(self) -> Self:
        if self.clip and not self.samples.count:
            raise ValueError("clip judges drawn pictures; set samples.count to 1 or more")
        return self

    @property
    def file_name(self) -> str:
        """What is written into the run's `model` folder, "" for that folder as a whole."""
        return f"{self.name}.safetensors"

    def with_rates(self, scales: Mapping[str, float]) -> Self:
        """Return the settings with these scales of the learning rate."""
        trainer = self.trainer.model_copy(update={"learning_rate_scales": dict(scales)})
        return self.model_copy(update={"trainer": trainer})


class PriorConfig(FinetuneConfig):
    """What finetuners are told that can keep the class of a subject as it was.

    Beside each picture of the subject one of its class is learnt, its loss weighed by
    `prior_weight` (0 leaves them out; Ruiz et al., arXiv:2208.12242, section 3.2). They lie in
    `class_folder`, or else the model draws `num_class_images` from `class_prompt` first, into the
    run's folder; each is then said to be at one of `class_places`, "{on a mat|in the snow}", for
    places shall stay as they were, too.
    """

    class_prompt: str = ""
    class_places: str = ""
    prior_weight: Annotated[float, Field(ge=0)] = 0.0
    num_class_images: AtLeastOne = 100
    class_folder: str = ""

    @model_validator(mode="after")
    def _class_is_square(self) -> Self:
        if self.prior_weight and self.data.buckets:
            raise ValueError(
                "pictures of the class are squares, which no batch of a bucket holds; set "
                "prior_weight = 0 or leave data.buckets out"
            )
        return self


class LoraSettings(Settings):
    """What a new LoRA is: see `sd_adapters.LoraConfig`; without `alpha` it is the rank.

    `targets` are a preset or ends of module paths in the UNet: "attn-kv" and "attn-cross" the
    cross-attention's, "attn" all attention's, "attn-ff" the transformers' whole, "all" the
    convolutions' too. With `text` the text encoders' `text_targets` learn along, at
    `text_learning_rate` if given.
    """

    rank: AtLeastOne = 16
    alpha: Positive | None = None
    targets: LoraTargets | tuple[str, ...] = "attn"
    kind: Literal["lora", "loha", "lokr"] = "lora"
    dora: bool = False
    tucker: bool = False
    factor: int = -1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    block_ranks: dict[str, AtLeastOne] = Field(default_factory=dict)
    text: bool = False
    text_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "out_proj")
    text_learning_rate: Positive | None = None
    layout: Literal["kohya", "diffusers"] = "kohya"

    @model_validator(mode="after")
    def _layout_holds_it(self) -> "LoraSettings":
        if self.layout == "diffusers" and (self.kind != "lora" or self.dora):
            kind = "DoRA" if self.dora else self.kind
            raise ValueError(f"layout 'diffusers' cannot hold a {kind}; use 'kohya'")
        return self


class LoraTrainConfig(PriorConfig):
    """A run of `lora train`."""

    method: Literal["lora"] = "lora"
    lora: LoraSettings = LoraSettings()


class DescribedSettings(Settings):
    """Words to describe a subject by: at most one of the adjectives, and one of each of details."""

    adjectives: tuple[str, ...] = ()
    details: tuple[tuple[str, ...], ...] = ()

    def words(self) -> list[str]:
        """List all that is offered."""
        return [*self.adjectives, *(word for each in self.details for word in each)]


class TextualInversionConfig(FinetuneConfig):
    """A run of `textual-inversion`: vectors for a `placeholder` that begin as those of `initial`.

    `templates` "object" and "style" put the placeholder into sentences of that kind; with
    "captions" it takes the place of the initial word, or of the noun, in the pictures' own
    captions. An empty `initial` is the noun, with those words of `described` that the model finds
    to fit the pictures, and an empty placeholder "my-" and the noun. `num_vectors`
    0 is as many as the initial word has, which may be several words. Of more than that the rest
    begin as that word over again, or with `filler` "end" as what ends a prompt, which says nothing,
    in front of it. Programs call an embedding as its file is called, which is the placeholder
    without what file names cannot have. The layout
    "webui" writes a .pt, the others .safetensors.
    """

    method: Literal["textual_inversion"] = "textual_inversion"
    placeholder: str = ""
    initial: str = ""
    described: DescribedSettings = DescribedSettings()
    num_vectors: Count = 0
    filler: Literal["initial", "end"] = "initial"
    templates: Literal["object", "style", "captions"] = "object"
    layout: Literal["diffusers", "kohya", "webui"] = "diffusers"

    @property
    def file_name(self) -> str:
        """What is written into the run's `model` folder."""
        return f"{self.name}.pt" if self.layout == "webui" else f"{self.name}.safetensors"

    @field_validator("placeholder")
    @classmethod
    def _one_word(cls, placeholder: str) -> str:
        if len(placeholder.split()) > 1 or placeholder != placeholder.strip():
            raise ValueError("it must be one word without spaces, such as <it>")
        return placeholder


class HypernetworkSettings(Settings):
    """How the networks are built, in the web UI's words: see `sd_adapters.HypernetworkConfig`.

    Without `widths` there are networks for every width of context that the UNet has.
    """

    layer_structure: tuple[float, ...] = (1, 2, 1)
    activation_func: str = "linear"
    weight_initialization: str = "Normal"
    is_layer_norm: bool = False
    dropout_structure: tuple[float, ...] = ()
    activate_output: bool = False
    widths: tuple[AtLeastOne, ...] = ()

    @model_validator(mode="after")
    def _can_be_built(self) -> "HypernetworkSettings":
        self.network()  # an AdapterError is a ValueError, so it is told as a setting's mistake
        return self

    def network(self) -> HypernetworkConfig:
        """Return what `sd_adapters` builds from."""
        return HypernetworkConfig(**self.model_dump(exclude={"widths"}))


class HypernetworkTrainConfig(PriorConfig):
    """A run of `hypernetwork`; `format` is the web UI's .pt or .safetensors."""

    method: Literal["hypernetwork"] = "hypernetwork"
    hypernetwork: HypernetworkSettings = HypernetworkSettings()
    format: Literal["pt", "safetensors"] = "pt"

    @property
    def file_name(self) -> str:
        """What is written into the run's `model` folder."""
        return f"{self.name}.{self.format}"


class DreamBoothConfig(PriorConfig):
    """A run of `dreambooth` (Ruiz et al., arXiv:2208.12242), which learns the class along.

    All weights of the UNet learn, with `train_text` those of the text encoders too; or, with
    `lora`, that. `contact_sheet` is how many pictures a row of the closing sheet has, 0 for none.
    """

    method: Literal["dreambooth"] = "dreambooth"
    captions: CaptionUse = "subject"
    prior_weight: Annotated[float, Field(ge=0)] = 1.0
    train_text: bool = False
    lora: LoraSettings | None = None
    contact_sheet: Count = 4
    export_dtype: Literal["fp16", "bf16", "fp32"] = "fp16"

    @property
    def file_name(self) -> str:
        """What is written into the run's `model` folder, "" for that folder as a whole."""
        return "" if self.lora is None else f"{self.name}.safetensors"

    @model_validator(mode="after")
    def _text_learns_in_one_way(self) -> "DreamBoothConfig":
        if self.lora is not None and self.train_text:
            raise ValueError("with a LoRA, train_text is lora.text; set that instead")
        return self
