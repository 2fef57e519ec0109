"""`sdcli train-vae` and `sdcli train`: runs from a TOML file that flags override."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, TypeVar

import typer

from sdcli.errors import CommandError
from sdcli.options import AsJson
from sdcli.results import show

if TYPE_CHECKING:
    from sd_train import DenoiserTrainConfig, VAETrainConfig

ConfigT = TypeVar("ConfigT", "VAETrainConfig", "DenoiserTrainConfig")

RunFile = Annotated[
    Path | None,
    typer.Argument(help="The run's TOML file. With --resume: default, the run folder's own."),
]
RunFolder = Annotated[
    Path, typer.Option("--run", help="Folder for settings, checkpoints, logs and the model.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the run's latest checkpoint, bit for bit.")
]
Data = Annotated[str | None, typer.Option(help="Folder of captioned pictures [data.folder].")]
Steps = Annotated[int | None, typer.Option(help="Optimizer steps in all [trainer.steps].")]
BatchSize = Annotated[
    int | None, typer.Option(help="Examples a forward pass [trainer.batch_size].")
]
LearningRate = Annotated[
    float | None, typer.Option(help="Peak learning rate [trainer.learning_rate].")
]
Seed = Annotated[int | None, typer.Option(help="Seed of the whole run [trainer.seed].")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda ... [trainer.device].")]
Precision = Annotated[str | None, typer.Option(help="fp32, bf16 or fp16 [trainer.precision].")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting as section.name=value; may be repeated."),
]


def train_vae(
    config: RunFile = None,
    run: RunFolder = Path("runs/vae"),
    resume: Resume = False,
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
    steps: Steps = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    seed: Seed = None,
    device: Device = None,
    precision: Precision = None,
    setting: Set = None,
    json: AsJson = False,
) -> None:
    """Train the autoencoder on a folder of pictures."""
    from sd_train import VAETrainConfig

    overrides = {
        "data.folder": data,
        "init_from": init_from,
        "decoder_only": decoder_only,
        **_trainer_overrides(steps, batch_size, learning_rate, seed, device, precision),
        **_parse_settings(setting),
    }
    _run(VAETrainConfig, config, run, overrides, resume=resume, as_json=json)


def train(
    config: RunFile = None,
    run: RunFolder = Path("runs/unet"),
    resume: Resume = False,
    data: Data = None,
    vae: Annotated[str | None, typer.Option(help="The autoencoder's folder [vae].")] = None,
    train_text_encoder: Annotated[
        bool | None,
        typer.Option(
            "--train-text-encoder/--freeze-text-encoder",
            help="Train the text encoder along, or keep it as it is [text.train].",
        ),
    ] = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    seed: Seed = None,
    device: Device = None,
    precision: Precision = None,
    setting: Set = None,
    json: AsJson = False,
) -> None:
    """Train the UNet, with the text encoder frozen or trained along."""
    from sd_train import DenoiserTrainConfig

    overrides = {
        "data.folder": data,
        "vae": vae,
        "text.train": train_text_encoder,
        **_trainer_overrides(steps, batch_size, learning_rate, seed, device, precision),
        **_parse_settings(setting),
    }
    _run(DenoiserTrainConfig, config, run, overrides, resume=resume, as_json=json)


def export(
    run: Annotated[Path, typer.Argument(help="The folder of a run, going on or not.")],
    folder: Annotated[Path, typer.Argument(help="The folder to write, replaced if it exists.")],
    json: AsJson = False,
) -> None:
    """Write a run's latest checkpoint, its averaged weights, as a model."""
    from sd_train import DenoiserTrainConfig, VAETrainConfig, export_run, load_toml

    settings = run / "config.toml"
    if not settings.is_file():
        raise CommandError(f"{run} holds no run: it has no config.toml")
    # A denoiser's run names the autoencoder it learned with; an autoencoder's has one of its own.
    with settings.open("rb") as file:
        is_vae = isinstance(_toml(file).get("vae"), dict)
    config: VAETrainConfig | DenoiserTrainConfig
    if is_vae:
        config = load_toml(VAETrainConfig, settings)
    else:
        config = load_toml(DenoiserTrainConfig, settings)
    checkpoint = export_run(config, run, folder)
    show(f"{folder}: {checkpoint}", {"model": folder, "checkpoint": checkpoint}, as_json=json)


def _toml(file: BinaryIO) -> dict[str, object]:
    import tomllib

    try:
        return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{file.name} is no TOML: {error}") from error


def _run(
    kind: type[ConfigT],
    config: Path | None,
    folder: Path,
    overrides: dict[str, object],
    *,
    resume: bool,
    as_json: bool,
) -> None:
    from sd_train import load_toml
    from sd_train import run as run_training
    from sdcli.training import reporter

    if config is None and not resume:
        raise CommandError("no run file given: name a TOML file, such as recipes/scenes-vae.toml")
    settings = load_toml(kind, config or folder / "config.toml", overrides)
    with reporter() as report:
        result = run_training(settings, folder, report, resume=resume)
    show(
        f"{result.status} at step {result.step}: {result.model or result.checkpoint}",
        {
            "status": result.status,
            "step": result.step,
            "model": result.model,
            "checkpoint": result.checkpoint,
        },
        as_json=as_json,
    )
    if result.status == "stopped":
        raise typer.Exit(130)


def _trainer_overrides(
    steps: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    seed: int | None,
    device: str | None,
    precision: str | None,
) -> dict[str, object]:
    return {
        "trainer.steps": steps,
        "trainer.batch_size": batch_size,
        "trainer.learning_rate": learning_rate,
        "trainer.seed": seed,
        "trainer.device": device,
        "trainer.precision": precision,
    }


def _parse_settings(settings: list[str] | None) -> dict[str, object]:
    """Read `section.name=value` pairs; a value is TOML where it can be, else a string."""
    import tomllib

    parsed: dict[str, object] = {}
    for text in settings or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise CommandError(f"--set {text!r} is not section.name=value")
        try:
            parsed[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed[name.strip()] = value
    return parsed
