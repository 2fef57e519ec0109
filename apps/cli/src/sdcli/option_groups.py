"""What every command that draws may be told, as two groups of options."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdcli import options
from sdcli.options import process_changes


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """Hold which model to draw with, and how; `changes` are to its diffusion process."""

    model: str
    variant: str | None
    use_ema: bool
    device: str
    dtype: str
    attention: str
    changes: Mapping[str, Any]
    batch_invariant: bool = False
    tiling: str = "auto"
    fuse: bool = False
    int8: bool = False
    tiny_vae: Path | None = None
    offload: bool = False
    engine: str = "torch"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOptions:
    """The model, what is wrong in what it says of itself, and what it runs on."""

    model: options.Model = "scenes"
    variant: options.Variant = None
    ema: options.UseEma = False
    prediction: options.Prediction = None
    betas: options.Betas = None
    zero_snr: options.ZeroSnr = None
    steps_offset: options.StepsOffset = None
    final_alpha: options.FinalAlpha = None
    device: options.Device = "auto"
    dtype: options.Dtype = "auto"
    attention: options.Attention = "auto"
    batch_invariant: options.BatchInvariant = False
    vae_tiling: options.VaeTiling = "auto"
    fuse: options.Fuse = False
    int8: options.Int8 = False
    tiny_vae: options.TinyVae = None
    offload: options.Offload = False
    engine: options.EngineName = "torch"

    def chosen(self) -> Chosen:
        """Return the choice; raises as `process_changes`."""
        return Chosen(
            model=self.model,
            variant=self.variant,
            use_ema=self.ema,
            device=self.device,
            dtype=self.dtype,
            attention=self.attention,
            batch_invariant=self.batch_invariant,
            tiling=self.vae_tiling,
            fuse=self.fuse,
            int8=self.int8,
            tiny_vae=self.tiny_vae,
            offload=self.offload,
            engine=self.engine,
            changes=process_changes(
                prediction=self.prediction,
                zero_snr=self.zero_snr,
                betas=self.betas,
                steps_offset=self.steps_offset,
                final_alpha=self.final_alpha,
            ),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingOptions:
    """How to get from noise to a picture."""

    negative: options.Negative = ""
    steps: options.Steps = None
    sampler: options.SamplerName = None
    schedule: options.ScheduleName = None
    guidance: options.Guidance = None
    guidance_rescale: options.GuidanceRescale = 0.0
    guidance_interval: options.GuidanceInterval = "0:1"
    apg: options.Projected = False
    threshold: options.Threshold = None
    pag: options.PagScale = 0.0
    pag_adaptive: options.PagAdaptive = 0.0
    pag_layers: options.PagLayers = "mid"
    seed: options.Seed = None
    batch: options.Batch = 1
    seamless: options.SeamlessAxes = "none"
    clip_skip: options.ClipSkip = 0
    class_name: options.ClassName = None
    reuse_features: options.ReuseFeatures = 1
    merge_tokens: options.MergeTokens = 0.0

    def settings(self, *, seed: int, image_guidance: float | None = None) -> dict[str, Any]:
        """Return what these options are to a `sd_pipeline.Txt2Img`.

        `image_guidance` is that of a command that shows the model a picture. Raises `CommandError`
        for a wrong form, `SamplerError` beyond guidance's limits.
        """
        from sd_sampler import GuidanceOptions

        guidance = GuidanceOptions(
            rescale=self.guidance_rescale,
            interval=options.read_interval(self.guidance_interval),
            projected=self.apg,
            threshold=self.threshold,
            pag_scale=self.pag,
            pag_adaptive_scale=self.pag_adaptive,
            pag_layers=tuple(name.strip() for name in self.pag_layers.split(",")),
            image_scale=image_guidance,
        )
        return {
            "negative_prompt": self.negative,
            "num_steps": self.steps,
            "sampler": self.sampler,
            "schedule": self.schedule,
            "guidance_scale": self.guidance,
            "guidance": guidance,
            "seed": seed,
            "batch_size": self.batch,
            "seamless": self.seamless,
            "clip_skip": self.clip_skip,
            "class_name": self.class_name,
            "reuse_features": self.reuse_features,
            "merge_tokens": self.merge_tokens,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptOptions:
    """What is made of a prompt before it is drawn, and the adapters that go with it."""

    style: options.StyleNames = None
    styles: options.StyleFile = Path("styles.csv")
    wildcards: options.WildcardFolder = None
    lora: options.Loras = None
    hypernetwork: options.Hypernetworks = None
    embedding: options.Embeddings = None
    adapters: options.AdapterFolder = Path("adapters")


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputOptions:
    """Where pictures go, and what is told of them."""

    out: options.Out = Path("outputs")
    file_format: options.FormatName = None
    quality: options.Quality = None
    preview: options.PreviewSteps = 0
    json: options.AsJson = False
