"""The settings of a training run, as people write them in TOML."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sd_pipeline.picture_opener import MAX_PIXELS, WHITE

Fraction = Annotated[float, Field(ge=0, le=1)]
ExportDtype = Literal["fp16", "bf16", "fp32"]
Precision = Literal["fp32", "bf16", "fp16"]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Channel = Annotated[int, Field(ge=0, le=255)]


class Settings(BaseModel):
    """Settings that people write: a misspelt one is an error, and none changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TrainerConfig(Settings):
    """The loop: a step is an optimizer step over `batch_size * accumulate` examples.

    0 switches off what counts or limits: `clip_grad_norm`, `ema_decay`, `save_every`,
    `validate_every`. The last step always saves, validates and exports. `optimizer` "muon" is of
    the matrices inside the networks; what else learns, learns by AdamW. "adafactor" keeps a row and
    a column of squares for each matrix, not two numbers a weight, and has no use for `betas`.
    "schedulefree" (of the package schedulefree) averages by itself, so that `ema_decay` has no
    effect, and wants a constant rate after the warm-up; "adamw8bit" is of bitsandbytes, on CUDA.

    With `compile` the network's blocks are compiled (torch.compile) within the first step, which
    takes minutes for a large network; validation runs them as they are.

    The checkpoint of the best validation is kept beside the last ones: `best_by` names what of it
    decides, `best_is` whether low or high is good. "auto" is the lowest `loss`, or `l1` of an
    autoencoder; "" keeps none.

    Of several processes each has all weights with `parallel` "ddp". With "fsdp" weights, averages
    and optimizer state of a UNet or DiT are shared out among them; of one process it makes no
    difference.
    """

    steps: AtLeastOne
    batch_size: AtLeastOne = 16
    accumulate: AtLeastOne = 1
    optimizer: Literal["adamw", "adamw8bit", "muon", "adafactor", "schedulefree"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    learning_rate_scales: dict[str, Annotated[float, Field(gt=0)]] = {}
    lr_schedule: Literal["constant", "cosine"] = "constant"
    lr_final: Fraction = 0.0
    warmup_steps: Count = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.999,
    )
    clip_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    ema_power: Annotated[float, Field(ge=0)] = 0.75
    precision: Precision = "fp32"
    seed: Count = 0
    save_every: Count = 1000
    keep_last: AtLeastOne = 2
    validate_every: Count = 1000
    best_by: str = "auto"
    best_is: Literal["lowest", "highest"] = "lowest"
    log_every: AtLeastOne = 50
    num_workers: Count = 0
    device: str = "auto"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    channels_last: bool = True
    compile: bool = False
    tensorboard: bool = True

    @model_validator(mode="after")
    def _warmup_fits(self) -> "TrainerConfig":
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} exceeds steps {self.steps}")
        return self

    @model_validator(mode="after")
    def _can_be_shared_out(self) -> "TrainerConfig":
        if self.parallel == "fsdp" and self.precision == "fp16":
            raise ValueError(
                "parallel 'fsdp' does not scale losses, as precision 'fp16' needs; use bf16 or fp32"
            )
        if self.parallel == "fsdp" and self.optimizer not in ("adamw", "muon"):
            raise ValueError(
                f"optimizer {self.optimizer!r} wants whole matrices, which parallel 'fsdp' shares "
                "out; use adamw or muon, or parallel 'ddp'"
            )
        if self.parallel == "fsdp" and self.compile:
            raise ValueError(
                "compile = true is not for parallel 'fsdp', which gathers a block's weights as it "
                "runs; set one of them back"
            )
        return self

    @model_validator(mode="after")
    def _schedule_free_has_none(self) -> "TrainerConfig":
        if self.optimizer == "schedulefree" and self.lr_schedule != "constant":
            raise ValueError(
                f"optimizer = 'schedulefree' wants no schedule, but lr_schedule is "
                f"{self.lr_schedule!r}; set it to 'constant'"
            )
        return self


class DataConfig(Settings):
    """A folder of captioned pictures, kohya's dataset TOML, which names several, or shards.

    `folder` is also a pattern of shards, tar files of pictures with captions such as
    "shards/{000..012}.tar", or a folder of them.

    Pictures are resized so that the shorter side is `size` and cut to the centre square; training
    sees random squares of `crop` px (0: the whole square). `flip` mirrors half of them: off, since
    captions say left and right. `holdout` pictures, evenly spaced, are kept for validation.
    `background` shows where a picture is transparent; one of more than `max_pixels` is left out.

    With `buckets` a picture keeps its shape instead: each is cut to the nearest of the sizes of
    about `size` x `size` pixels whose sides are multiples of `bucket_step` (0: 64, less below 512),
    and a batch is of one size.

    `labels` says what tells each picture's class: the "folders" in `folder`, one a class; the
    "data", which is "label" in metadata.jsonl and the .cls of shards; or, "", nothing. `classes`
    names them in the order of their numbers; without, they are all that there are. `label_dropout`
    is the share that is learnt as of no class, besides those that lose their caption.

    A mask, `name.mask.png` beside a picture, weighs what a denoiser learns of it: white is learnt,
    black not. With `alpha_is_mask` a picture without one has its alpha for a mask.

    With `shuffle_tags` what stands between a caption's commas is learnt in `tag_orders` orders,
    drawn once, the first `keep_tags` always in front; kohya's TOML can say so of single folders.

    What frozen encoders say of the data takes at most `cache_gb` GB in the run's folder.
    """

    folder: str
    size: AtLeastOne = 512
    crop: Count = 0
    buckets: bool = False
    bucket_step: Count = 0
    flip: bool = False
    caption_dropout: Fraction = 0.1
    shuffle_tags: bool = False
    keep_tags: Count = 0
    tag_orders: AtLeastOne = 8
    holdout: Count = 64
    in_memory: bool = True
    background: tuple[Channel, Channel, Channel] = WHITE
    max_pixels: Annotated[int, Field(ge=1, le=2 * MAX_PIXELS)] = MAX_PIXELS
    alpha_is_mask: bool = False
    cache_gb: Annotated[float, Field(gt=0)] = 100.0
    labels: Literal["", "folders", "data"] = ""
    classes: tuple[str, ...] = ()
    label_dropout: Fraction = 0.1

    @model_validator(mode="after")
    def _classes_are_labels(self) -> "DataConfig":
        if self.classes and not self.labels:
            raise ValueError(
                "classes are named, but nothing says which picture is of which; set labels to "
                "'folders' or 'data'"
            )
        plain = [" ".join(name.split()).casefold() for name in self.classes]
        twice = [name for name in plain if plain.count(name) > 1 or not name]
        if twice:
            raise ValueError(f"classes has {twice[0]!r} more than once, or empty; name each once")
        return self

    @model_validator(mode="after")
    def _crop_fits(self) -> "DataConfig":
        if self.crop > self.size:
            raise ValueError(f"crop {self.crop} exceeds size {self.size}; use at most {self.size}")
        return self

    @model_validator(mode="after")
    def _buckets_have_no_crop(self) -> "DataConfig":
        if self.buckets and self.crop:
            raise ValueError("with buckets pictures are cut to their bucket; leave crop at 0")
        return self


class Architecture(Settings):
    """A preset of a network by name, with single fields of its config replaced."""

    preset: str
    fields: dict[str, Any] = {}


class VAELossSettings(Settings):
    """The weights of the autoencoder's loss.

    `learn_logvar` learns how much all errors together count against the divergence of the latents,
    from `logvar_init` on (see `sd_vae.VAELoss`). `perceptual_weight` is of `[perceptual]`,
    `codebook_weight` and `commitment_weight` of `kind = "vq"`.
    """

    reconstruction: Literal["l1", "mse"] = "l1"
    kl_weight: Annotated[float, Field(ge=0)] = 1e-6
    gradient_weight: Annotated[float, Field(ge=0)] = 0.0
    detail_weight: Annotated[float, Field(ge=0)] = 0.0
    perceptual_weight: Annotated[float, Field(ge=0)] = 1.0
    learn_logvar: bool = False
    logvar_init: float = 0.0
    codebook_weight: Annotated[float, Field(ge=0)] = 1.0
    commitment_weight: Annotated[float, Field(ge=0)] = 0.25


class PerceptualSettings(Settings):
    """The files of the perceptual network, safetensors or `.pth`; nothing is downloaded.

    `weights` is LPIPS with its VGG16, such as a whole `lpips.LPIPS(net="vgg")`, or an autoencoder's
    checkpoint that was saved with its loss; or VGG16 alone, whose channels then count equally; or
    LPIPS's own layers alone, with the VGG16, torchvision's, in `vgg`.
    """

    weights: str
    vgg: str = ""


class AdversarialSettings(Settings):
    """The discriminator that the autoencoder learns against, from `start_step` steps on.

    `weight` is what the decoder hears of it, with `adaptive` in proportion to all other terms
    (Esser et al., arXiv 2012.09841, equation 7). `num_layers`, `num_filters` and `norm` are the
    discriminator's, `learning_rate` (the trainer's, unless given), `betas` and `weight_decay` its
    optimizer's; schedule, clipping and all else are the trainer's.
    """

    weight: Annotated[float, Field(ge=0)] = 0.5
    start_step: Count = 0
    loss: Literal["hinge", "non_saturating"] = "hinge"
    adaptive: bool = True
    num_layers: AtLeastOne = 3
    num_filters: AtLeastOne = 64
    norm: Literal["batch", "group"] = "batch"
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.5,
        0.9,
    )
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class VAETrainConfig(Settings):
    """A run of `train-vae`, of the `kind` "kl", or "vq" with a codebook.

    `init_from` is an autoencoder to go on from: its own folder, or a whole model's folder or file.
    With `decoder_only` its encoder and scaling factor stay as they are, so that denoisers trained
    on its latents stay valid.
    `attention` is one of `sd_ops.ATTENTION_BACKENDS`.

    `equivariance` is the share of the steps in which pictures and latents are halved in size before
    the latents are decoded: latents that mean the same at any scale hold no hidden patterns, and
    denoisers learn them several times as fast (Kouzelis et al., "EQ-VAE", arXiv 2502.09509).

    With `[perceptual]` and `[adversarial]`, off unless they are there, the loss is whole that of
    latent diffusion (Rombach et al., arXiv 2112.10752, appendix G).
    """

    trainer: TrainerConfig
    data: DataConfig
    kind: Literal["kl", "vq"] = "kl"
    vae: Architecture = Architecture(preset="sd15")
    loss: VAELossSettings = VAELossSettings()
    perceptual: PerceptualSettings | None = None
    adversarial: AdversarialSettings | None = None
    attention: str = "auto"
    equivariance: Annotated[float, Field(ge=0, le=1)] = 0.0
    init_from: str = ""
    decoder_only: bool = False
    export_dtype: Literal["fp16", "bf16", "fp32"] = "fp16"

    @model_validator(mode="after")
    def _decoder_needs_an_encoder(self) -> "VAETrainConfig":
        if self.decoder_only and not self.init_from:
            raise ValueError("decoder_only = true needs `init_from`, the autoencoder to go on from")
        return self

    @model_validator(mode="after")
    def _learns_whole_pictures(self) -> "VAETrainConfig":
        if self.data.buckets:
            raise ValueError("an autoencoder learns squares; leave data.buckets out")
        if self.data.alpha_is_mask:
            raise ValueError("an autoencoder learns whole pictures; leave data.alpha_is_mask out")
        return self

    @model_validator(mode="after")
    def _opponent_has_its_turn(self) -> "VAETrainConfig":
        if self.adversarial and self.adversarial.start_step >= self.trainer.steps:
            raise ValueError(
                f"adversarial.start_step {self.adversarial.start_step} is not below trainer.steps "
                f"{self.trainer.steps}; lower it, or leave [adversarial] out"
            )
        return self


class TextSettings(Settings):
    """The text encoder: trained along or frozen, new from a preset or from a folder.

    `folder` holds `text_encoder/` and `tokenizer/`, or is a model's file. Without it the preset is
    built with the tokenizer "captions" (closed, made from the training captions), "clip", or a
    tokenizer folder.
    """

    train: bool = False
    folder: str = ""
    preset: str = "vit_l14"
    fields: dict[str, Any] = {}
    tokenizer: str = "clip"
    context_length: AtLeastOne = 77

    @model_validator(mode="after")
    def _frozen_needs_weights(self) -> "TextSettings":
        if not self.train and not self.folder:
            raise ValueError("a frozen text encoder needs `folder`; give it, or set train = true")
        return self


class ScheduleSettings(Settings):
    """The noise schedule of the forward process."""

    name: Literal["linear", "scaled_linear", "cosine"] = "scaled_linear"
    num_timesteps: AtLeastOne = 1000
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 0.00085
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.012
    zero_terminal_snr: bool = False


class WeightingSettings(Settings):
    """How timesteps are drawn and weighted, and the noise of training.

    `noise_offset` is of `sd_sampler.offset_noise`, `multires_discount` of `multires_noise`; 0 is
    none. Validation has white noise.
    """

    weighting: Literal["uniform", "snr", "truncated_snr", "min_snr", "debiased"] = "uniform"
    min_snr_gamma: Annotated[float, Field(gt=0)] = 5.0
    timesteps: Literal["uniform", "antithetic", "logit_normal"] = "uniform"
    noise_offset: Annotated[float, Field(ge=0)] = 0.0
    multires_discount: Annotated[float, Field(ge=0, lt=1)] = 0.0


class ObjectiveSettings(WeightingSettings):
    """What the network predicts; how timesteps are drawn and weighted, as `WeightingSettings`."""

    prediction: Literal["eps", "v", "x0", "flow"] = "eps"


class SampleSettings(Settings):
    """The validation pictures, from fixed noise; without `prompts`, of held-out captions.

    Of a model that is told classes alone prompts are these, and without any all have their turn.
    """

    prompts: tuple[str, ...] = ()
    count: Count = 8
    steps: AtLeastOne = 20
    sampler: str = "dpmpp_2m"
    sigmas: str = "karras"
    guidance_scale: float = 5.0


class DenoiserTrainConfig(Settings):
    """A run of `train`: the UNet, with the text encoder frozen or trained along.

    With `data.labels` it is told classes too, or, without `[text]`, classes alone.
    With `arch = "dit"` a diffusion transformer stands in its place; `unet` holds its preset (xl2,
    scenes) and fields, and whatever else reads the run is none the wiser.
    `vae` is the autoencoder and `init_from` a UNet to go on from: the part's own folder, or that of
    a whole model's folder or file. `attention` is one of `sd_ops.ATTENTION_BACKENDS`.
    `gradient_checkpointing` computes activations again in the backward pass: less memory, more
    time.
    """

    trainer: TrainerConfig
    data: DataConfig
    vae: str
    text: TextSettings | None = None
    arch: Literal["unet", "dit"] = "unet"
    unet: Architecture = Architecture(preset="sd15")
    schedule: ScheduleSettings = ScheduleSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    samples: SampleSettings = SampleSettings()
    cache_latents: bool = True
    sample_posterior: bool = False
    attention: str = "auto"
    gradient_checkpointing: bool = False
    init_from: str = ""
    export_dtype: Literal["fp16", "bf16", "fp32"] = "fp16"

    @model_validator(mode="after")
    def _is_told_something(self) -> "DenoiserTrainConfig":
        if self.text is None and not self.data.labels:
            raise ValueError(
                "there is neither text nor data.labels; give [text], or data.labels for a model "
                "that is told classes alone"
            )
        return self

    @model_validator(mode="after")
    def _cache_needs_fixed_pictures(self) -> "DenoiserTrainConfig":
        if self.cache_latents and (self.data.crop or self.data.flip):
            raise ValueError(
                "cache_latents = true needs data.crop = 0 and data.flip = false; set them so"
            )
        return self
