"""Training from nothing: runs from a TOML file that flags override."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from sdcli.errors import CommandError
from sdcli.grouping import grouped
from sdcli.options import AsJson
from sdcli.progress import note
from sdcli.results import show
from sdcli.train_options import Data, RunFile, RunFolder, TrainOptions
from sdcli.training import rehearsed, show_result, trained

if TYPE_CHECKING:
    from sd_train import ClipTrainConfig, DenoiserTrainConfig, TextBindConfig, VAETrainConfig

ConfigT = TypeVar(
    "ConfigT", "VAETrainConfig", "DenoiserTrainConfig", "ClipTrainConfig", "TextBindConfig"
)


@grouped
def train_vae(
    common: TrainOptions,
    config: RunFile = None,
    run: RunFolder = Path("runs/vae"),
    data: Data = None,
    init_from: Annotated[
        str | None, typer.Option(help="Folder of an autoencoder to go on from [init_from].")
    ] = None,
    decoder_only: Annotated[
        bool | None,
        typer.Option(
            "--decoder-only/--whole",
            help="Keep the encoder and its latents as they are [decoder_only].",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="kl, or vq for latents of a codebook [kind]."),
    ] = None,
    perceptual: Annotated[
        str | None,
        typer.Option(
            help="File of LPIPS or VGG16, for a perceptual term in the loss [perceptual.weights].",
        ),
    ] = None,
    perceptual_vgg: Annotated[
        str | None,
        typer.Option(
            help="File of VGG16, where --perceptual has LPIPS's own layers alone [perceptual.vgg].",
        ),
    ] = None,
    adversarial: Annotated[
        float | None,
        typer.Option(
            help="Learn against a discriminator, of this weight in the loss [adversarial.weight].",
        ),
    ] = None,
    adversarial_start: Annotated[
        int | None,
        typer.Option(
            help="Steps before the discriminator takes part [adversarial.start_step].",
        ),
    ] = None,
) -> None:
    """Train the autoencoder on a folder of pictures."""
    from sd_train import VAETrainConfig

    overrides = {
        "data.folder": data,
        "init_from": init_from,
        "decoder_only": decoder_only,
        "kind": kind,
        "perceptual.weights": perceptual,
        "perceptual.vgg": perceptual_vgg,
        "adversarial.weight": adversarial,
        "adversarial.start_step": adversarial_start,
        **common.values(),
    }
    _run(VAETrainConfig, config, run, overrides, common)


@grouped
def train(
    common: TrainOptions,
    config: RunFile = None,
    run: RunFolder = Path("runs/unet"),
    data: Data = None,
    vae: Annotated[str | None, typer.Option(help="The autoencoder's folder [vae].")] = None,
    arch: Annotated[
        str | None,
        typer.Option(help="The denoiser: unet, or dit for a diffusion transformer [arch]."),
    ] = None,
    train_text_encoder: Annotated[
        bool | None,
        typer.Option(
            "--train-text-encoder/--freeze-text-encoder",
            help="Train the text encoder along, or keep it as it is [text.train].",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="What tells each picture's class: folders, one a class, or data, which is label "
            "in metadata.jsonl and .cls in shards [data.labels]."
        ),
    ] = None,
    buckets: Annotated[
        bool | None,
        typer.Option(
            "--buckets/--squares",
            help="Let pictures keep their shapes, a batch of one size, or cut squares "
            "[data.buckets].",
        ),
    ] = None,
) -> None:
    """Train the UNet, with the text encoder frozen or trained along, or told classes."""
    from sd_train import DenoiserTrainConfig

    overrides = {
        "data.folder": data,
        "vae": vae,
        "arch": arch,
        "text.train": train_text_encoder,
        "data.labels": labels,
        "data.buckets": buckets,
        **common.values(),
    }
    _run(DenoiserTrainConfig, config, run, overrides, common)


@grouped
def train_clip(
    common: TrainOptions,
    config: RunFile = None,
    run: RunFolder = Path("runs/clip"),
    data: Data = None,
) -> None:
    """Train a CLIP: encoders of text and of pictures that find one another.

    `train` takes its text encoder as [text.folder].
    """
    from sd_train import ClipTrainConfig

    _run(ClipTrainConfig, config, run, {"data.folder": data, **common.values()}, common)


@grouped
def train_text(
    common: TrainOptions,
    config: RunFile = None,
    run: RunFolder = Path("runs/text"),
    data: Annotated[
        str | None, typer.Option(help="Folder whose captions are learnt from [data].")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder of the model whose encoder is taught [model].")
    ] = None,
) -> None:
    """Teach a small model's text encoder to keep a colour with its thing, from captions alone."""
    from sd_train import TextBindConfig

    overrides = {
        "data": data,
        "model": model,
        **common.values(),
    }
    _run(TextBindConfig, config, run, overrides, common)


def export(
    run: Annotated[Path, typer.Argument(help="The folder of a run, going on or not.")],
    folder: Annotated[Path, typer.Argument(help="The folder to write, replaced if it exists.")],
    best: Annotated[
        bool, typer.Option("--best", help="The best checkpoint in place of the latest.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Write a run's latest checkpoint, its averaged weights, as a model."""
    from sd_train import LineReporter, export_run, load_run

    checkpoint = export_run(load_run(run), run, folder, LineReporter(note), best=best)
    show(f"{folder}: {checkpoint}", {"model": folder, "checkpoint": checkpoint}, as_json=json)


def _run(
    kind: type[ConfigT],
    config: Path | None,
    folder: Path,
    overrides: dict[str, object],
    common: TrainOptions,
) -> None:
    from sd_train import load_toml

    if config is None and not common.resume:
        raise CommandError("no run file given: name a TOML file, such as recipes/scenes-vae.toml")
    settings = load_toml(kind, config or folder / "config.toml", overrides)
    if common.dry_run:
        rehearsed(settings, folder, as_json=common.json)
        return
    result = trained(settings, folder, resume=common.resume)
    show_result(result, result.model, as_json=common.json)
