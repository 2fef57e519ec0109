"""Options that the commands on LoRA files share."""

from pathlib import Path
from typing import Annotated

import typer

LoraPath = Annotated[Path, typer.Argument(help="A LoRA's file, of kohya's or diffusers' layout.")]
Out = Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")]
Rank = Annotated[
    int | None, typer.Option("--rank", help="The rank that no layer is to exceed, 1 or more.")
]
Energy = Annotated[
    float | None,
    typer.Option(
        "--energy",
        help="Take of each layer the least rank that keeps this share, up to 1, of its squared "
        "weights, such as 0.95.",
    ),
]
Stored = Annotated[
    str,
    typer.Option("--dtype", help="fp32, fp16, bf16, or keep the type that the input has."),
]
Layout = Annotated[
    str,
    typer.Option(
        "--layout",
        help="kohya, which the web UIs read, or diffusers (PEFT's), which holds plain LoRAs and "
        "DoRAs alone, with alpha in the weights.",
    ),
]
MadeFor = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A model that it was made for, whose layers' names are needed for diffusers' layout, "
        "and for kohya's of SDXL. [default: scenes for the former]",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is written to if it exists.")
]
