"""`sdcli img2img`, `inpaint`, `outpaint` and `upscale`: a picture and a prompt become pictures."""

from pathlib import Path
from typing import Annotated

import typer

from sdcli.drawing import draw
from sdcli.errors import CommandError
from sdcli.grouping import grouped
from sdcli.models import locate_model
from sdcli.option_groups import ModelOptions, OutputOptions, PromptOptions, SamplingOptions
from sdcli.options import PROMPT_HELP, Count, Height, Width
from sdcli.seeds import choose_seed

Prompt = Annotated[str, typer.Argument(help=PROMPT_HELP)]
Source = Annotated[Path, typer.Argument(help="The picture to begin with: PNG, JPEG, WebP ...")]
_STRENGTH_HELP = "Share of the steps that are taken, above 0; 1 keeps nothing of the picture."
Strength = Annotated[float, typer.Option("--strength", help=_STRENGTH_HELP)]
FitName = Annotated[
    str,
    typer.Option(
        "--fit", help="How the picture is brought to the size: crop, stretch or pad (on white)."
    ),
]
_WAYS = ("pixel", "latent")
_LATENT_STRENGTH = 0.55  # enlarged latents are blurred, and it takes more steps to draw that over


@grouped
def img2img(
    image: Source,
    prompt: Prompt,
    sampling: SamplingOptions,
    prompts: PromptOptions,
    output: OutputOptions,
    model: ModelOptions,
    strength: Annotated[
        float | None,
        typer.Option(
            help=f"{_STRENGTH_HELP} Not for models that edit by instructions, which begin with "
            "noise. [default: 0.75]"
        ),
    ] = None,
    image_guidance: Annotated[
        float | None,
        typer.Option(
            help="For models that edit by instructions (instruct-pix2pix): how closely to keep to "
            "the picture, from 0 to 100; 1 is no guidance by it, and --guidance 1 turns both off. "
            "[default: 1.5]"
        ),
    ] = None,
    depth: Annotated[
        Path | None,
        typer.Option(
            help="For models that draw by depth, which need it: a grey map of what the picture "
            "shows, brighter where it is nearer, of any size; all of 16 bits are heeded."
        ),
    ] = None,
    fit: FitName = "crop",
    width: Width = None,
    height: Height = None,
    count: Count = 1,
) -> None:
    """Draw pictures from a picture and a prompt, or edit one by an instruction."""
    from sd_pipeline import Img2Img, read_depth, read_image

    seed = choose_seed(sampling.seed, count)
    request = Img2Img(
        image=read_image(image),
        prompt=prompt,
        strength=strength,
        depth=None if depth is None else read_depth(depth),
        fit=fit,  # type: ignore[arg-type]
        width=width,
        height=height,
        count=count,
        **sampling.settings(seed=seed, image_guidance=image_guidance),
    )
    draw([request], model.chosen(), output, prompts)


@grouped
def inpaint(
    image: Source,
    prompt: Prompt,
    sampling: SamplingOptions,
    prompts: PromptOptions,
    output: OutputOptions,
    model: ModelOptions,
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
        bool, typer.Option(help="Leave what is outside the mask as it is, to the bit.")
    ] = True,
    margin: Annotated[
        int | None,
        typer.Option(
            help="Draw only the mask's surroundings, this many pixels on each side, enlarged to "
            "the model's size. [default: the whole picture]"
        ),
    ] = None,
    strength: Strength = 1.0,
    fit: FitName = "crop",
    width: Width = None,
    height: Height = None,
    count: Count = 1,
) -> None:
    """Draw a part of a picture anew, with an inpainting model or any other."""
    from sd_pipeline import Inpaint, read_image

    request = Inpaint(
        image=read_image(image),
        prompt=prompt,
        mask=None if mask is None else read_image(mask),
        mask_blur=mask_blur,
        keep_outside=keep_outside,
        margin=margin,
        strength=strength,
        fit=fit,  # type: ignore[arg-type]
        width=width,
        height=height,
        count=count,
        **sampling.settings(seed=choose_seed(sampling.seed, count)),
    )
    draw([request], model.chosen(), output, prompts)


@grouped
def outpaint(
    image: Source,
    prompt: Prompt,
    sampling: SamplingOptions,
    prompts: PromptOptions,
    output: OutputOptions,
    model: ModelOptions,
    left: Annotated[int, typer.Option(help="Pixels to draw on the left.")] = 0,
    top: Annotated[int, typer.Option(help="Pixels to draw above.")] = 0,
    right: Annotated[int, typer.Option(help="Pixels to draw on the right.")] = 0,
    bottom: Annotated[int, typer.Option(help="Pixels to draw below.")] = 0,
    mask_blur: Annotated[
        float, typer.Option(help="Pixels over which the new fades into the picture.")
    ] = 4.0,
    strength: Strength = 1.0,
    count: Count = 1,
) -> None:
    """Draw what lies beyond the sides of a picture."""
    from sd_pipeline import Outpaint, read_image

    request = Outpaint(
        image=read_image(image),
        prompt=prompt,
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        mask_blur=mask_blur,
        strength=strength,
        count=count,
        **sampling.settings(seed=choose_seed(sampling.seed, count)),
    )
    draw([request], model.chosen(), output, prompts)


@grouped
def upscale(
    image: Source,
    sampling: SamplingOptions,
    prompts: PromptOptions,
    output: OutputOptions,
    model: ModelOptions,
    prompt: Annotated[
        str | None, typer.Argument(help="What it shows. [default: what its file says]")
    ] = None,
    scale: Annotated[float, typer.Option(help="How many times as large, above 1 to 8.")] = 2.0,
    by: Annotated[
        str,
        typer.Option(
            help="What is enlarged before it is drawn over: pixel (smooth, keeps to the picture) "
            "or latent (sharper, wants --strength 0.5 or more)."
        ),
    ] = "pixel",
    strength: Annotated[
        float | None,
        typer.Option(
            help="Share of the steps that are taken, above 0 to 1: more is more new detail. Where "
            "things come twice, the picture has outgrown what the model was trained on: take less. "
            "[default: the model's, else 0.35; by latent 0.55]"
        ),
    ] = None,
    count: Count = 1,
) -> None:
    """Draw a picture again, larger and with more detail: the second pass of a "hires fix"."""
    from sd_pipeline import Img2Img, read_image

    if not 1 < scale <= 8:
        raise CommandError(f"--scale is {scale}; it must be above 1 and at most 8")
    if by not in _WAYS:
        raise CommandError(f"--by is {by!r}; it must be {' or '.join(_WAYS)}")
    if strength is None:
        strength = _LATENT_STRENGTH if by == "latent" else _strength_of(model)
    picture = read_image(image)
    width, height = (max(8, round(side * scale / 8) * 8) for side in picture.size)
    request = Img2Img(
        image=picture,
        prompt=_prompt_of(image) if prompt is None else prompt,
        strength=strength,
        fit="stretch",
        resize=by,  # type: ignore[arg-type]
        width=width,
        height=height,
        count=count,
        **sampling.settings(seed=choose_seed(sampling.seed, count)),
    )
    draw([request], model.chosen(), output, prompts)


def _strength_of(model: ModelOptions) -> float:
    """Return the strength that a model's pictures are best drawn over with."""
    from sd_pipeline import Defaults, read_defaults

    stated = read_defaults(locate_model(model.model, variant=model.variant))
    return (stated or Defaults()).upscale_strength


def _prompt_of(image: Path) -> str:
    from sd_pipeline import PipelineError, read_metadata

    try:
        settings = read_metadata(image).settings
    except PipelineError:
        settings = {}
    prompt = settings.get("prompt") or settings.get("Prompt")
    if not isinstance(prompt, str):
        raise CommandError(f"{image} does not say what it shows; give a prompt after it")
    return prompt
