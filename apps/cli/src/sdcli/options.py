"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdcli.errors import CommandError

if TYPE_CHECKING:
    from sd_sampler import GuidanceOptions

Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="The embedded model's name; a folder in the diffusers layout; a .safetensors or .ckpt "
        "file; or a model of the Hub, from the cache or downloaded: org/name, org/name/file, "
        "org/name@revision.",
    ),
]
Variant = Annotated[
    str | None,
    typer.Option("--variant", help="Which set of a folder's weights, such as fp16 or non_ema."),
]
UseEma = Annotated[
    bool, typer.Option("--ema", help="Use the running average that a single file may hold.")
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps. auto takes a GPU if any.")
]
Dtype = Annotated[
    str, typer.Option("--dtype", help="auto, fp32, fp16 or bf16. auto: fp16 on CUDA, else fp32.")
]
Attention = Annotated[
    str, typer.Option("--attention", help="auto, xformers, sdpa or chunked (low memory).")
]

Negative = Annotated[
    str, typer.Option("--negative", help="What to keep away from; needs --guidance above 1.")
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        help="A .png file for one picture (replaced if it exists), or a folder, in which "
        "every picture gets a new name.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option("--steps", help="Sampling steps, 1 or more. [default: the model's]"),
]
SamplerName = Annotated[
    str | None,
    typer.Option(
        "--sampler",
        help="ddim, ddpm, ddpm_large, euler, euler_a, heun, dpm2, dpm2_a, lms, plms, dpmpp_2m, "
        "dpmpp_2s_a, dpmpp_sde, dpmpp_2m_sde, dpmpp_3m_sde, unipc, deis, lcm or tcd; or as the "
        "web UI spells it, such as 'DPM++ 2M Karras'. [default: the model's]",
    ),
]
ScheduleName = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        help="Noise levels to stop at: karras, exponential, polyexponential, kl_optimal, "
        "uniform, sgm_uniform, simple, ddim_uniform, beta, align_your_steps, "
        "align_your_steps_xl, lcm, leading, trailing or linspace. [default: the sampler's]",
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        "--guidance",
        help="Classifier-free guidance scale, from 1 (off) to 100. [default: the model's]",
    ),
]
GuidanceRescale = Annotated[
    float,
    typer.Option(
        "--guidance-rescale",
        help="From 0 to 1: how much of guidance's overexposure is taken back; 0.7 for models of "
        "zero terminal SNR.",
    ),
]
GuidanceInterval = Annotated[
    str,
    typer.Option(
        "--guidance-interval",
        help="Shares of the steps between which there is guidance, such as 0.1:0.8; outside it the "
        "negative prompt is not asked for, which is faster.",
    ),
]
Projected = Annotated[
    bool,
    typer.Option("--apg", help="Adaptive projected guidance: high --guidance without glare."),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        help="Dynamic thresholding: the percentile, such as 99.5, beyond which guided values are "
        "cut off.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", help="Seed of the first picture; picture i has seed + i. [default: random]"
    ),
]
Count = Annotated[int, typer.Option("--count", help="Pictures in all.")]
Batch = Annotated[
    int,
    typer.Option("--batch", help="Pictures at a time; more is faster and takes more memory."),
]
WildcardFolder = Annotated[
    Path | None,
    typer.Option(
        "--wildcards",
        help="Folder of .txt files, a choice a line: animals/pets.txt is __animals/pets__.",
    ),
]
PROMPT_HELP = (
    "What to draw. (word:1.2), (word) and [word] weigh words, [a:b:0.5] and [a|b] "
    "change them by step, AND joins prompts, BREAK begins a new piece, {a|b} and __name__ "
    "choose one by the seed; a backslash before a bracket takes it as it is."
)

# What a model says of its own diffusion process, for when it is wrong or silent.
Prediction = Annotated[
    str | None,
    typer.Option(
        "--prediction", help="What the UNet predicts: eps, v or x0. [default: the model's]"
    ),
]
ZeroSnr = Annotated[
    bool | None,
    typer.Option(
        "--zero-snr/--no-zero-snr",
        help="Rescale the betas to zero terminal SNR. [default: the model's]",
    ),
]
Betas = Annotated[
    str | None,
    typer.Option(
        "--betas",
        help="Noise schedule as NAME or NAME:START:END: scaled_linear:0.00085:0.012, linear, "
        "cosine or sigmoid. [default: the model's]",
    ),
]
StepsOffset = Annotated[
    int | None,
    typer.Option("--steps-offset", help="Added to leading timesteps. [default: the model's]"),
]
FinalAlpha = Annotated[
    str | None,
    typer.Option(
        "--final-alpha",
        help="Where DDIM's last step lands: one (no noise) or first (the first timestep's). "
        "[default: the model's]",
    ),
]


def process_changes(
    *,
    prediction: str | None = None,
    zero_snr: bool | None = None,
    betas: str | None = None,
    steps_offset: int | None = None,
    final_alpha: str | None = None,
) -> dict[str, Any]:
    """Turn the options above that are given into fields of `sd_sampler.DiffusionConfig`.

    Raises `CommandError` for a value of the wrong form; the fields' own limits are the sampler's.
    """
    changes: dict[str, Any] = {
        "prediction": prediction,
        "zero_terminal_snr": zero_snr,
        "steps_offset": steps_offset,
        **_betas(betas),
    }
    if final_alpha is not None:
        if final_alpha not in ("one", "first"):
            raise CommandError(f"--final-alpha is {final_alpha!r}; it must be one or first")
        changes["set_alpha_to_one"] = final_alpha == "one"
    if steps_offset is not None and not 0 <= steps_offset < 1000:
        raise CommandError(f"--steps-offset is {steps_offset}; it must be from 0 to 999")
    return {name: value for name, value in changes.items() if value is not None}


def guidance_options(
    *, rescale: float, interval: str, projected: bool, threshold: float | None
) -> "GuidanceOptions":
    """Turn the options above into `sd_sampler.GuidanceOptions`.

    Raises `CommandError` for an interval of the wrong form, `SamplerError` beyond the limits.
    """
    from sd_sampler import GuidanceOptions

    try:
        first, last = (float(share) for share in interval.split(":"))
    except ValueError as error:
        raise CommandError(
            f"--guidance-interval is {interval!r}; it must be FIRST:LAST, such as 0.1:0.8"
        ) from error
    return GuidanceOptions(
        rescale=rescale, interval=(first, last), projected=projected, threshold=threshold
    )


def _betas(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    name, *ends = text.split(":")
    if not ends:
        return {"schedule": name}
    try:
        start, end = (float(number) for number in ends)
    except ValueError:
        start, end = 0.0, 0.0
    if not 0 < start <= end < 1:
        raise CommandError(
            f"--betas is {text!r}; it must be NAME or NAME:START:END with 0 < START <= END < 1"
        )
    return {"schedule": name, "beta_start": start, "beta_end": end}
