"""`sdcli img2img`, `inpaint` and `outpaint`: a picture and a prompt become pictures."""

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
    int | None, typer.Option("--width", help="Pixels, a multiple of 8. [default: the picture's]")
]
Height = Annotated[
    int | None, typer.Option("--height", help="Pixels, a multiple of 8. [default: the picture's]")
]
Source = Annotated[Path, typer.Argument(help="The picture to begin with: PNG, JPEG, WebP ...")]
Strength = Annotated[
    float,
    typer.Option(
        "--strength",
        help="Share of the steps that are taken, above 0; 1 keeps nothing of the picture.",
    ),
]
FitName = Annotated[
    str,
    typer.Option(
        "--fit", help="How the picture is brought to the size: crop, stretch or pad (on white)."
    ),
]


def img2img(
    image: Source,
    prompt: Annotated[str, typer.Argument(help=PROMPT_HELP)],
    strength: Strength = 0.75,
    fit: FitName = "crop",
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
    """Draw pictures from a picture and a prompt."""
    from sd_pipeline import Img2Img, read_image

    request = Img2Img(
        image=read_image(image),
        strength=strength,
        fit=fit,  # type: ignore[arg-type]
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


def inpaint(
    image: Source,
    prompt: Annotated[str, typer.Argument(help=PROMPT_HELP)],
    mask: Annotated[
        Path | None,
        typer.Option(
            help="White where the picture is to be drawn anew; as large as it. "
            "[default: where the picture is transparent]"
        ),
    ] = None,
    mask_blur: Annotated[
        float, typer.Option(help="Pixels over which the mask's edge fades outwards.")
    ] = 4.0,
    keep_outside: Annotated[
        bool,
        typer.Option(help="Leave what is outside the mask as it is, to the bit."),
    ] = True,
    strength: Strength = 1.0,
    fit: FitName = "crop",
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
    """Draw a part of a picture anew, with an inpainting model or any other."""
    from sd_pipeline import Inpaint, read_image

    request = Inpaint(
        image=read_image(image),
        mask=None if mask is None else read_image(mask),
        mask_blur=mask_blur,
        keep_outside=keep_outside,
        strength=strength,
        fit=fit,  # type: ignore[arg-type]
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


def outpaint(
    image: Source,
    prompt: Annotated[str, typer.Argument(help=PROMPT_HELP)],
    left: Annotated[int, typer.Option(help="Pixels to draw on the left.")] = 0,
    top: Annotated[int, typer.Option(help="Pixels to draw above.")] = 0,
    right: Annotated[int, typer.Option(help="Pixels to draw on the right.")] = 0,
    bottom: Annotated[int, typer.Option(help="Pixels to draw below.")] = 0,
    mask_blur: Annotated[
        float, typer.Option(help="Pixels over which the new fades into the picture.")
    ] = 4.0,
    strength: Strength = 1.0,
    negative: Negative = "",
    out: Out = Path("outputs"),
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
    """Draw what lies beyond the sides of a picture."""
    from sd_pipeline import Inpaint, extended, read_image

    canvas, mask = extended(read_image(image), left=left, top=top, right=right, bottom=bottom)
    request = Inpaint(
        image=canvas,
        mask=mask,
        mask_blur=mask_blur,
        strength=strength,
        prompt=prompt,
        negative_prompt=negative,
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
