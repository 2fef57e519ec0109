"""The commands, one file a group; none imports torch before it runs."""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

import typer

# The file of each command, and its function there where that is not called as the command is.
_COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "txt2img": ("txt2img", "txt2img"),
        "img2img": ("img2img", "img2img"),
        "inpaint": ("img2img", "inpaint"),
        "outpaint": ("img2img", "outpaint"),
        "upscale": ("img2img", "upscale"),
        "variations": ("variations", "variations"),
        "interpolate": ("variations", "interpolate"),
        "grid": ("grid", "grid"),
        "train-vae": ("train", "train_vae"),
        "train": ("train", "train"),
        "train-text": ("train", "train_text"),
        "train-clip": ("train", "train_clip"),
        "export": ("train", "export"),
        "add-words": ("words", "add_words"),
        "eval": ("evaluate", "evaluate"),
        "textual-inversion": ("finetune", "textual_inversion"),
        "hypernetwork": ("finetune", "hypernetwork"),
        "dreambooth": ("finetune", "dreambooth"),
        "scenes": ("scenes", "scenes"),
        "encode": ("latents", "encode"),
        "decode": ("latents", "decode"),
        "inspect": ("records", "inspect"),
        "replay": ("records", "replay"),
        "convert": ("convert", "convert"),
        "mix": ("mix", "mix"),
        "data": ("data", "app"),
        "lora": ("lora_files", "app"),
        "models": ("models", "app"),
    }
)


def register(app: typer.Typer, asked: str | None = None) -> None:
    """Add the command that is asked for, or where there is no such one all of them.

    Reading the options of all takes as long as loading the embedded model.
    """
    names = [name for name in _COMMANDS if name == asked] or list(_COMMANDS)
    # With one command alone, and no callback, there would be no names of commands at all.
    app.callback()(_nothing)
    for name in names:
        file, function = _COMMANDS[name]
        found: Any = getattr(import_module(f"sdcli.commands.{file}"), function)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)


def _nothing() -> None: ...
