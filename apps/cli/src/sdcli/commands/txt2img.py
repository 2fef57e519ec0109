"""`sdcli txt2img`: prompts become pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdcli.drawing import draw
from sdcli.errors import CommandError
from sdcli.grouping import grouped
from sdcli.option_groups import ModelOptions, OutputOptions, PromptOptions, SamplingOptions
from sdcli.options import PROMPT_HELP, Count, Height, Width
from sdcli.prompt_lines import read_lines
from sdcli.seeds import choose_seed

if TYPE_CHECKING:
    from sd_pipeline import Txt2Img


@grouped
def txt2img(
    sampling: SamplingOptions,
    prompts: PromptOptions,
    output: OutputOptions,
    model: ModelOptions,
    prompt: Annotated[str | None, typer.Argument(help=PROMPT_HELP)] = None,
    prompt_file: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            help="A file of prompts, one a line, or - for stdin. A line may end in options of its "
            "own: --negative --width --height --steps --sampler --schedule --guidance --seed "
            "--count --batch --seamless --clip-skip --class.",
        ),
    ] = None,
    width: Width = None,
    height: Height = None,
    count: Count = 1,
) -> None:
    """Draw pictures from a prompt and print each one's path, seed and time.

    Of a model that was taught classes and no text, the prompt is a class's name or number.
    """
    if prompt is None and prompt_file is None:
        prompt = sampling.class_name
    settings = {
        **sampling.settings(seed=choose_seed(sampling.seed, count)),
        "width": width,
        "height": height,
        "count": count,
    }
    draw(_requests(prompt, prompt_file, settings), model.chosen(), output, prompts)


def _requests(
    prompt: str | None, prompt_file: Path | None, settings: dict[str, Any]
) -> "list[Txt2Img]":
    if (prompt is None) == (prompt_file is None):
        raise CommandError("give either a prompt or a file of them with --prompts")
    from sd_pipeline import PipelineError, Txt2Img

    if prompt_file is None:
        return [Txt2Img(prompt=prompt or "", **settings)]
    requests = []
    for line in read_lines(prompt_file):
        try:
            requests.append(Txt2Img(**{**settings, **line.settings}))
        except PipelineError as error:
            raise CommandError(f"line {line.number} of the prompts: {error}") from error
    return requests
