"""What `sdcli eval` is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sdcli.options import AsJson, Device, Dtype, Guidance, SamplerName, Steps, Variant

Data = Annotated[
    str | None,
    typer.Option(
        help="Folder of captioned pictures, or tar shards, that the model never learnt. [default: "
        "what the run has held out]"
    ),
]
Pictures = Annotated[
    str | None,
    typer.Option(help="Judge this folder of drawn pictures against --data; no model is opened."),
]
Features = Annotated[
    str | None,
    typer.Option(
        help="For FID and KID: a file of the Inception of 2015-12-05 (.safetensors, .pth); a "
        "TorchScript program, which is run, so trust it; or clip. [default: clip, where --clip is "
        "given]"
    ),
]
ClipFolder = Annotated[
    Path | None,
    typer.Option("--clip", help="A CLIP that train-clip made: score and retrieval, or features."),
]
Measures = Annotated[
    str | None,
    typer.Option(help="What of loss,fid,kid,clip to measure. [default: all that can be]"),
]
Count = Annotated[
    int | None, typer.Option(help="Pictures to draw. [default: as many as are held out]")
]
Bands = Annotated[int, typer.Option(help="Bands of timesteps, each with its loss.")]
LossPictures = Annotated[int, typer.Option(help="Pictures to measure the loss on, at most.")]
Batch = Annotated[int, typer.Option("--batch", help="Pictures drawn at once.")]
Size = Annotated[
    int,
    typer.Option(help="With --pictures: pixels a side to compare at.", min=8, max=16384),
]
Seed = Annotated[int, typer.Option(help="Same seed, same figures.")]
Best = Annotated[
    bool, typer.Option("--best", help="Of a run: its best checkpoint, not its latest.")
]
Out = Annotated[
    Path | None, typer.Option("--out", help="A new folder for the pictures that are drawn.")
]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalOptions:
    """What is measured, by whom, and on how much."""

    data: Data = None
    pictures: Pictures = None
    features: Features = None
    clip: ClipFolder = None
    measures: Measures = None
    count: Count = None
    bands: Bands = 10
    loss_pictures: LossPictures = 256
    batch: Batch = 8
    size: Size = 512
    seed: Seed = 0
    steps: Steps = None
    guidance: Guidance = None
    sampler: SamplerName = None
    best: Best = False
    out: Out = None
    variant: Variant = None
    device: Device = "auto"
    dtype: Dtype = "auto"
    json: AsJson = False

    def chosen(self) -> tuple[str, ...]:
        """Return the measures that are asked for, none for all that can be."""
        return tuple(name.strip() for name in (self.measures or "").split(",") if name.strip())
