"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sdcli.errors import CommandError

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
    str,
    typer.Option(
        "--dtype",
        help="auto, fp32, fp16 or bf16. auto: fp16 on CUDA; bf16 for large models on a CPU that "
        "is no slower in it; else fp32.",
    ),
]
MergeTokens = Annotated[
    float,
    typer.Option(
        "--merge-tokens",
        help="The share of the finest level's tokens, 0 to 0.75, that are merged into others like "
        "them for self-attention: faster, above all in large pictures, and another picture. 0 is "
        "exact.",
    ),
]
ReuseFeatures = Annotated[
    int,
    typer.Option(
        "--reuse-features",
        help="Compute the whole UNet at one of so many steps, 1 to 10, and its finest level alone "
        "at the others: faster, and another picture. 1 is exact.",
    ),
]
Int8 = Annotated[
    bool,
    typer.Option(
        "--int8",
        help="Hold the UNet's weights in eight bits a value, with a scale a channel: a quarter of "
        "fp32's memory and half of fp16's, slower, and another picture. LoRAs ride on top.",
    ),
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        help="What computes the UNet: torch; compiled, by torch.compile, which takes a minute or "
        "two at the first step of each size; graphs, whose steps are recorded on CUDA, as those of "
        "compiled are; or on a CPU openvino (pip install 'sd-pipeline[openvino]'), which converts "
        "it at the first step of each size, and of LoRAs needs --fuse. All are for several "
        "pictures, and the same but for rounding.",
    ),
]
Attention = Annotated[
    str, typer.Option("--attention", help="auto, xformers, native, sdpa or chunked (low memory).")
]

Negative = Annotated[
    str, typer.Option("--negative", help="What to keep away from; needs --guidance above 1.")
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        help="A .png, .jpg or .webp file for one picture (replaced if it exists), or a folder, in "
        "which every picture gets a new name.",
    ),
]
FormatName = Annotated[
    str | None,
    typer.Option("--format", help="In a folder: png, jpeg or webp. [default: png]"),
]
Quality = Annotated[
    int | None,
    typer.Option(
        "--quality", help="Of JPEG and WebP, from 1 to 100. [default: 95; WebP without loss]"
    ),
]
PreviewSteps = Annotated[
    int,
    typer.Option(
        "--preview",
        help="Write the running picture, small, every so many steps to preview.png beside the "
        "pictures; 0 is never.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Steps = Annotated[
    int | None,
    typer.Option("--steps", help="Sampling steps, 1 or more. [default: the model's]"),
]
SAMPLERS = (
    "ddim", "ddpm", "ddpm_large", "euler", "euler_a", "heun", "dpm2", "dpm2_a", "lms", "plms",
    "dpmpp_2m", "dpmpp_2s_a", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "unipc", "deis", "lcm",
    "tcd", "restart", "er_sde",
)  # fmt: skip
"""Those of sd_sampler, which imports torch and so is not asked for its names here."""
SCHEDULES = (
    "karras", "exponential", "polyexponential", "kl_optimal", "uniform", "sgm_uniform", "simple",
    "ddim_uniform", "beta", "align_your_steps", "align_your_steps_xl", "lcm", "leading",
    "trailing", "linspace",
)  # fmt: skip


def _one_of(names: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Complete a name in the shell."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


SamplerName = Annotated[
    str | None,
    typer.Option(
        "--sampler",
        help=f"{', '.join(SAMPLERS[:-1])} or {SAMPLERS[-1]}; or as the web UI spells it, such as "
        "'DPM++ 2M Karras'. [default: the model's]",
        autocompletion=_one_of(SAMPLERS),
    ),
]
ScheduleName = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        help=f"Noise levels to stop at: {', '.join(SCHEDULES[:-1])} or {SCHEDULES[-1]}. "
        "[default: the sampler's]",
        autocompletion=_one_of(SCHEDULES),
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
PagScale = Annotated[
    float,
    typer.Option(
        "--pag",
        help="Perturbed-attention guidance: how far from what the UNet sees without its "
        "self-attention, from 0 (off) to 100; 3 is usual. It takes half as long again.",
    ),
]
PagAdaptive = Annotated[
    float,
    typer.Option(
        "--pag-adaptive", help="From 0 to 1: how soon --pag wanes on the way; 0 is not at all."
    ),
]
PagLayers = Annotated[
    str,
    typer.Option(
        "--pag-layers",
        help="Where: mid, down, up, or paths of modules such as up_blocks.1, with commas between.",
    ),
]
Width = Annotated[
    int | None,
    typer.Option("--width", help="Pixels, a multiple of 8. [default: the model's or picture's]"),
]
Height = Annotated[
    int | None,
    typer.Option("--height", help="Pixels, a multiple of 8. [default: the model's or picture's]"),
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
StyleNames = Annotated[
    list[str] | None,
    typer.Option("--style", help="A style of the --styles file; may be repeated."),
]
StyleFile = Annotated[
    Path,
    typer.Option(
        "--styles",
        help="The web UI's styles.csv: name, prompt, negative_prompt. {prompt} is where the prompt "
        "goes, else a style is added at its end.",
    ),
]
SeamlessAxes = Annotated[
    str,
    typer.Option(
        "--seamless", help="Go on at the other side, as tiles do: along x, y, both or none."
    ),
]
ClipSkip = Annotated[
    int,
    typer.Option(
        "--clip-skip",
        help="Leave out the text encoder's last layers, so many; 1 is the web UI's 'Clip skip: 2', "
        "which some models are made for.",
    ),
]
ClassName = Annotated[
    str | None,
    typer.Option(
        "--class",
        help="The class to draw, by name or number, of a model that was taught some. One without "
        "a text encoder takes the prompt for it.",
    ),
]
BatchInvariant = Annotated[
    bool,
    typer.Option(
        "--batch-invariant",
        help="Ask the UNet for one picture at a time, so that the batch does not change a "
        "picture's last digits; a batch of small ones then takes a third longer on a CPU.",
    ),
]
VaeTiling = Annotated[
    str,
    typer.Option(
        "--vae-tiling",
        help="Take pictures through the autoencoder in bands of rows, to the same result: on, off, "
        "or auto, above 1024 x 1024 pixels. Then it needs temporary disk in place of memory.",
    ),
]
Offload = Annotated[
    bool,
    typer.Option(
        "--offload",
        help="For small GPUs: have text encoder, UNet and autoencoder there only while they "
        "compute, one at a time. The same pictures, a little slower.",
    ),
]
TinyVae = Annotated[
    Path | None,
    typer.Option(
        "--tiny-vae",
        help="Draw through a tiny autoencoder in place of the model's decoder, previews too: a "
        "file such as taesd_decoder.safetensors, or a folder of diffusers' AutoencoderTiny, made "
        "for the model's latents. Much faster, and another picture.",
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
        "--prediction", help="What the UNet predicts: eps, v, x0 or flow. [default: the model's]"
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


Loras = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        help="A LoRA's file, or FILE:0.8 for less of it, FILE:0.5:0.8 for the text encoder and the "
        "UNet; may be given again. In a prompt: <lora:name:0.8>.",
    ),
]
Hypernetworks = Annotated[
    list[str] | None,
    typer.Option(
        "--hypernetwork",
        help="A hypernetwork's file, or FILE:0.6; may be given again. In a prompt: "
        "<hypernet:name:0.6>.",
    ),
]
Embeddings = Annotated[
    list[Path] | None,
    typer.Option(
        "--embedding",
        help="A textual inversion's file; prompts call it as the file is called; may be given "
        "again.",
    ),
]
AdapterFolder = Annotated[
    Path,
    typer.Option(
        "--adapters",
        help="The folder with the adapters that prompts name, in it or below; embeddings are in "
        "its folder embeddings.",
    ),
]
Fuse = Annotated[
    bool,
    typer.Option(
        "--fuse",
        help="Write LoRAs into the weights while they are used: a moment to do, and then they cost "
        "no time. The last digits may differ.",
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


def read_interval(interval: str) -> tuple[float, float]:
    """Read FIRST:LAST; raises `CommandError` for another form."""
    try:
        first, last = (float(share) for share in interval.split(":"))
    except ValueError as error:
        raise CommandError(
            f"--guidance-interval is {interval!r}; it must be FIRST:LAST, such as 0.1:0.8"
        ) from error
    return first, last


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
