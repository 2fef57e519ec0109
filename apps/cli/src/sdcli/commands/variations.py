"""`sdcli variations` and `interpolate`: pictures on the way from one to another."""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdcli.drawing import Drawn, check_place, draw
from sdcli.errors import CommandError
from sdcli.grouping import grouped
from sdcli.option_groups import ModelOptions, OutputOptions, PromptOptions, SamplingOptions
from sdcli.options import PROMPT_HELP, Height, Width
from sdcli.seeds import choose_seed

if TYPE_CHECKING:
    from sd_pipeline import Record, Txt2Img

_ANIMATIONS = (".gif", ".webp", ".png")
_MAX_FRAMES = 1000


@grouped
def variations(
    file: Annotated[Path, typer.Argument(help="A picture that txt2img drew.")],
    output: OutputOptions,
    model: ModelOptions,
    strength: Annotated[
        float, typer.Option(help="How far from it, from 0 (the same) to 1 (another seed's).")
    ] = 0.2,
    count: Annotated[int, typer.Option(help="Pictures in all.")] = 4,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed to go towards; picture i goes towards seed + i. [default: random]"),
    ] = None,
) -> None:
    """Draw a picture again, each time a little different: its noise turned towards another seed's.

    All else is as its file says, but for the model's options, which are those given here.
    """
    from sd_pipeline import read_metadata

    if count < 1:
        raise CommandError(f"--count is {count}; it must be at least 1")
    if not 0 <= strength <= 1:
        raise CommandError(f"--strength is {strength}; it must be from 0 to 1")
    record = read_metadata(file).record
    if record is None or record.edit:
        raise CommandError(f"{file} does not say that txt2img drew it; use img2img on it")
    first = choose_seed(seed, count)
    requests = [_variation(record, strength, first + index) for index in range(count)]
    draw(requests, model.chosen(), output)


def _variation(record: "Record", share: float, seed: int) -> "Txt2Img":
    from sd_pipeline import Blend, Txt2Img

    return Txt2Img(
        prompt=record.prompt,
        negative_prompt=record.negative_prompt,
        width=record.width,
        height=record.height,
        num_steps=record.num_steps,
        sampler=record.sampler,
        schedule=record.schedule,
        guidance_scale=record.guidance_scale,
        guidance=record.guidance,
        seed=record.seed,
        seamless=record.seamless,
        clip_skip=record.clip_skip,
        reuse_features=record.reuse_features,
        merge_tokens=record.merge_tokens,
        adapters=record.adapters,
        blend=Blend(share=share, seed=seed),
    )


@grouped
def interpolate(
    prompts: Annotated[
        list[str], typer.Argument(help="Prompts to go through, one after the other. " + PROMPT_HELP)
    ],
    sampling: SamplingOptions,
    prompt_options: PromptOptions,
    output: OutputOptions,
    model: ModelOptions,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Seeds to go through, such as 7,12,7: as many as prompts, or for one prompt any "
            "number. [default: --seed throughout]"
        ),
    ] = None,
    frames: Annotated[int, typer.Option(help="Pictures from one to the next.")] = 12,
    animation: Annotated[
        Path | None,
        typer.Option(help="A .gif, .webp or .png (animated) file to put the frames together in."),
    ] = None,
    fps: Annotated[float, typer.Option(help="Frames a second in the animation.")] = 8.0,
    width: Width = None,
    height: Height = None,
) -> None:
    """Draw the way from one prompt or seed to the next, frame by frame."""
    from sd_pipeline import Txt2Img

    if not 1 <= frames <= _MAX_FRAMES:
        raise CommandError(f"--frames is {frames}; it must be from 1 to {_MAX_FRAMES}")
    if not 0.1 <= fps <= 100:
        raise CommandError(f"--fps is {fps}; it must be from 0.1 to 100")
    if animation is not None and animation.suffix.lower() not in _ANIMATIONS:
        raise CommandError(f"--animation {animation} must end in {', '.join(_ANIMATIONS)}")
    if animation is not None:
        check_place(animation, "--animation")
    stops = _stops(prompts, seeds, choose_seed(sampling.seed, 1))
    settings = {**sampling.settings(seed=0), "width": width, "height": height}
    requests = [Txt2Img(**{**settings, **frame}) for frame in _frames(stops, frames)]

    def finish(drawn: Drawn) -> None:
        if animation is not None:
            _animate(drawn, animation, fps)
            drawn.more["animation"] = str(animation)
            if not output.json:
                print(animation)

    draw(requests, model.chosen(), output, prompt_options, finish=finish)


def _stops(prompts: list[str], seeds: str | None, seed: int) -> list[tuple[str, int]]:
    """Return the prompts and seeds to go through."""
    try:
        numbers = [seed] if seeds is None else [int(number) for number in seeds.split(",")]
    except ValueError as error:
        raise CommandError(f"--seeds is {seeds!r}; it must be numbers and commas") from error
    length = max(len(prompts), len(numbers))
    if len(prompts) not in (1, length) or len(numbers) not in (1, length):
        raise CommandError(
            f"there are {len(prompts)} prompts and {len(numbers)} seeds; give one, or as many"
        )
    if length < 2:
        raise CommandError("there is one prompt and one seed: give another to go to")
    prompts = prompts * (length // len(prompts))
    return list(zip(prompts, numbers * (length // len(numbers)), strict=True))


def _frames(stops: list[tuple[str, int]], number: int) -> list[dict[str, object]]:
    """Return what each frame sets: `number` on each way, and the last stop itself."""
    from sd_pipeline import Blend

    frames: list[dict[str, object]] = []
    for (prompt, seed), (next_prompt, next_seed) in pairwise(stops):
        for index in range(number):
            blend = Blend(
                share=index / number,
                prompt=next_prompt if next_prompt != prompt else None,
                seed=next_seed if next_seed != seed else None,
            )
            frames.append({"prompt": prompt, "seed": seed, "blend": blend if index else None})
    frames.append({"prompt": stops[-1][0], "seed": stops[-1][1]})
    return frames


def _animate(drawn: Drawn, path: Path, fps: float) -> None:
    from sd_checkpoint import atomic_path
    from sd_pipeline import animation_bytes

    images = [picture.image for picture in drawn.pictures]
    with atomic_path(path) as temporary:
        temporary.write_bytes(animation_bytes(images, path.suffix.lower(), fps))
