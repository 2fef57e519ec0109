"""Options that all finetuners share, and how their lists are written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sdcli.errors import CommandError
from sdcli.train_options import TrainOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneOptions(TrainOptions):
    """What all four are told."""

    config: Annotated[
        Path | None, typer.Argument(help="A TOML file of settings, which the options override.")
    ] = None
    images: Annotated[
        str | None,
        typer.Option(
            "--images",
            help="Folder of 3 to 20 pictures; captions as for `sdcli train` [data.folder].",
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="The model to teach: the embedded one's name; a folder in the diffusers layout; "
            "a .safetensors or .ckpt file; or org/name of the Hub [model]. [default: scenes]",
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The run's folder: settings, checkpoints, logs, and the result in its folder "
            "model. [default: runs/METHOD-IMAGES]",
        ),
    ] = None
    name: Annotated[
        str | None, typer.Option("--name", help="What the result is called [name].")
    ] = None
    noun: Annotated[
        str | None,
        typer.Option(
            "--noun",
            help="What kind of thing the pictures show [noun]. [default: guessed from captions or "
            "the folder's name]",
        ),
    ] = None
    identifier: Annotated[
        str | None,
        typer.Option("--identifier", help="The rare word that tells it from others [identifier]."),
    ] = None
    instance_prompt: Annotated[
        str | None,
        typer.Option(
            "--instance-prompt",
            help="The caption of pictures that have none, such as 'a photo of sks dog' "
            "[instance_prompt].",
        ),
    ] = None
    captions: Annotated[
        str | None,
        typer.Option(
            "--captions",
            help="own: as they are; subject: the identifier goes before their noun; prompt: the "
            "instance prompt for all [captions].",
        ),
    ] = None
    holdout: Annotated[
        int | None,
        typer.Option("--holdout", help="Pictures kept to measure by [data.holdout]."),
    ] = None
    clip: Annotated[
        str | None,
        typer.Option(
            "--clip",
            help="A CLIP that train-clip made: each validation tells how like the subject its "
            "pictures are, and how far they keep to their prompts [clip].",
        ),
    ] = None
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--gradient-checkpointing/--no-gradient-checkpointing",
            help="Save memory for time [gradient_checkpointing].",
        ),
    ] = None

    def values(self) -> dict[str, object]:
        """Return what is given by the names of the settings; raises as `TrainOptions.values`."""
        return {
            "data.folder": self.images,
            "model": self.model,
            "name": self.name,
            "noun": self.noun,
            "identifier": self.identifier,
            "instance_prompt": self.instance_prompt,
            "captions": self.captions,
            "data.holdout": self.holdout,
            "clip": self.clip,
            "gradient_checkpointing": self.gradient_checkpointing,
            # super() needs the class that slots=True has replaced.
            **TrainOptions.values(self),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorOptions:
    """What those are told that can keep a subject's kind as it was."""

    class_prompt: Annotated[
        str | None,
        typer.Option(
            "--class-prompt",
            help="Others of its kind, such as 'a photo of a dog' [class_prompt]. "
            "[default: the instance prompt without the identifier]",
        ),
    ] = None
    class_places: Annotated[
        str | None,
        typer.Option(
            "--class-places",
            help="Where those are that the model draws, such as '{on a red mat|in the snow}' "
            "[class_places].",
        ),
    ] = None
    class_images: Annotated[
        str | None,
        typer.Option(
            "--class-images",
            help="A folder of pictures of its kind [class_folder]. [default: the model draws them]",
        ),
    ] = None
    num_class_images: Annotated[
        int | None,
        typer.Option("--num-class-images", help="How many it draws [num_class_images]."),
    ] = None
    prior_weight: Annotated[
        float | None,
        typer.Option(
            "--prior-weight",
            help="What they count; 0 is nothing, and draws none [prior_weight].",
        ),
    ] = None

    def values(self) -> dict[str, object]:
        """Return what is given by the names of the settings."""
        return {
            "class_prompt": self.class_prompt,
            "class_places": self.class_places,
            "class_folder": self.class_images,
            "num_class_images": self.num_class_images,
            "prior_weight": self.prior_weight,
        }


def read_targets(text: str | None) -> str | list[str] | None:
    """Read the name of a preset, or ends of paths with commas between."""
    if text is None or "," not in text:
        known = text is None or text.startswith("attn-") or text in ("attn", "all")
        return text if known else [str(text)]
    return [part.strip() for part in text.split(",") if part.strip()]


def read_numbers(text: str | None) -> list[float] | None:
    """Read numbers with commas between; raises `CommandError` for anything else."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise CommandError(f"{text!r} is no list of numbers, such as 1,2,1") from error
