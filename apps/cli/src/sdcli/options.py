"""Options that several commands share."""

from typing import Annotated

import typer

Model = Annotated[
    str, typer.Option("--model", help="The embedded model's name, or a diffusers folder.")
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps. auto takes a GPU if any.")
]
Dtype = Annotated[
    str, typer.Option("--dtype", help="auto, fp32, fp16 or bf16. auto: fp16 on CUDA, else fp32.")
]
Attention = Annotated[
    str, typer.Option("--attention", help="auto, xformers, sdpa or chunked (low memory).")
]
