"""`sdcli txt2img`: a prompt becomes pictures."""

from pathlib import Path
from typing import Annotated

import typer

from sdcli.drawing import Chosen, draw
from sdcli.options import (
    PROMPT_HELP,
    Attention,
    Batch,
    Betas,
    Count,
    Device,
    Dtype,
    FinalAlpha,
    Guidance,
    GuidanceInterval,
    GuidanceRescale,
    Model,
    Negative,
    Out,
    Prediction,
    Projected,
    SamplerName,
    ScheduleName,
    Seed,
    Steps,
    StepsOffset,
    Threshold,
    UseEma,
    Variant,
    WildcardFolder,
    ZeroSnr,
    guidance_options,
    process_changes,
)
from sdcli.seeds import choose_seed

Width = Annotated[
    int | None, typer.Option("--width", help="Pixels, a multiple of 8. [default: the model's]")
]
Height = Annotated[
    int | None, typer.Option("--height", help="Pixels, a multiple of 8. [default: the model's]")
]


def txt2img(
    prompt: Annotated[str, typer.Argument(help=PROMPT_HELP)],
    negative: Negative = "",
    out: Out = Path("outputs"),
    width: Width = None,
    height: Height = None,
    steps: Steps = None,
    sampler: SamplerName = None,
    schedule: ScheduleName = None,
    guidance: Guidance = None,
    guidance_rescale: GuidanceRescale = 0.0,
    guidance_interval: GuidanceInterval = "0:1",
    apg: Projected = False,
    threshold: Threshold = None,
    seed: Seed = None,
    count: Count = 1,
    batch: Batch = 1,
    wildcards: WildcardFolder = None,
    model: Model = "scenes",
    variant: Variant = None,
    ema: UseEma = False,
    prediction: Prediction = None,
    betas: Betas = None,
    zero_snr: ZeroSnr = None,
    steps_offset: StepsOffset = None,
    final_alpha: FinalAlpha = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    attention: Attention = "auto",
) -> None:
    """Draw pictures from a prompt and print each one's path, seed and time."""
    from sd_pipeline import Txt2Img

    request = Txt2Img(
        prompt=prompt,
        negative_prompt=negative,
        width=width,
        height=height,
        num_steps=steps,
        sampler=sampler,
        schedule=schedule,
        guidance_scale=guidance,
        guidance=guidance_options(
            rescale=guidance_rescale,
            interval=guidance_interval,
            projected=apg,
            threshold=threshold,
        ),
        seed=choose_seed(seed, count),
        count=count,
        batch_size=batch,
    )
    chosen = Chosen(
        model=model,
        variant=variant,
        use_ema=ema,
        device=device,
        dtype=dtype,
        attention=attention,
        changes=process_changes(
            prediction=prediction,
            zero_snr=zero_snr,
            betas=betas,
            steps_offset=steps_offset,
            final_alpha=final_alpha,
        ),
    )
    draw(request, chosen, out, wildcards)
