"""Options that the commands which train share, and the settings that they stand for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sdcli.errors import CommandError
from sdcli.options import AsJson

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
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Do a few steps at full size, tell time, memory and disk that the run needs, and end. "
        "Latents are encoded and kept.",
    ),
]
Data = Annotated[
    str | None, typer.Option(help="Folder of captioned pictures, or tar shards [data.folder].")
]
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
Parallel = Annotated[
    str | None,
    typer.Option(
        help="What several processes do with weights: ddp, each has all, or fsdp, each has a part "
        "[trainer.parallel]."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting as section.name=value; may be repeated."),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions:
    """What every command that trains is told."""

    resume: Resume = False
    dry_run: DryRun = False
    steps: Steps = None
    batch_size: BatchSize = None
    learning_rate: LearningRate = None
    seed: Seed = None
    device: Device = None
    precision: Precision = None
    parallel: Parallel = None
    setting: Set = None
    json: AsJson = False

    def values(self) -> dict[str, object]:
        """Return what is given by the names of the settings.

        Raises `CommandError` for a `--set` of the wrong form.
        """
        return {
            "trainer.steps": self.steps,
            "trainer.batch_size": self.batch_size,
            "trainer.learning_rate": self.learning_rate,
            "trainer.seed": self.seed,
            "trainer.device": self.device,
            "trainer.precision": self.precision,
            "trainer.parallel": self.parallel,
            **_parsed(self.setting),
        }


def _parsed(settings: list[str] | None) -> dict[str, object]:
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
