"""LoRA files for the tiny model, and `sdcli lora` on them."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdcli.main import run

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT, TEXT_2 = "text_encoder/model.safetensors", "text_encoder_2/model.safetensors"
ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
RESNET = "down_blocks.0.resnets.0.conv1"
LAYER = "text_model.encoder.layers.0.self_attn.q_proj"
# kohya's name of each, the shape of its weight, and where that is in a model's folder
PLACES = {
    f"lora_unet_{ATTENTION.replace('.', '_')}": ((64, 64), UNET, f"{ATTENTION}.weight"),
    f"lora_unet_{RESNET.replace('.', '_')}": ((32, 32, 3, 3), UNET, f"{RESNET}.weight"),
    f"lora_te_{LAYER.replace('.', '_')}": ((32, 32), TEXT, f"{LAYER}.weight"),
}
LINEAR = next(iter(PLACES))
TO_DIFFUSERS = ("--layout", "diffusers", "--model", "model")
HEADER = {
    "ss_sd_model_name": "tiny.safetensors",
    "ss_training_comment": "by hand",
    "ss_network_dim": "4",
    "ss_network_args": '{"conv_dim": 4}',
    "ss_tag_frequency": json.dumps({"cats": 300 * "x"}),
    "sshs_model_hash": "0" * 64,
}


def sdcli(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """Run a command of `sdcli lora` that must do, and return what it says as JSON."""
    code, out, err = sdcli(capsys, "lora", *arguments, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert isinstance(document, dict)
    return document


def write(
    path: Path,
    seed: int,
    *,
    rank: int = 4,
    alpha: float = 4.0,
    dtype: torch.dtype = torch.float32,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a LoRA of kohya's layout for the tiny model."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, ((out, *into), *_) in PLACES.items():
        ones = [1] * (len(into) - 1)
        for part, shape in (("down", (rank, *into)), ("up", (out, rank, *ones))):
            numbers = torch.randn(shape, generator=generator) / 3
            tensors[f"{name}.lora_{part}.weight"] = numbers.to(dtype)
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path, dict(HEADER if metadata is None else metadata))
    return path


def additions(path: Path) -> dict[str, Tensor]:
    """Restate what each layer of a file of kohya's layout adds to its weight."""
    tensors, found = load_file(path), {}
    for name in {key.partition(".")[0] for key in tensors}:
        up, down = (tensors[f"{name}.lora_{part}.weight"].float() for part in ("up", "down"))
        scale = tensors[f"{name}.alpha"] / len(down)
        found[name] = (up.flatten(1) @ down.flatten(1) * scale).reshape(len(up), *down.shape[1:])
    return found


def header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def changed(folder: Path, copy: Path, changes: Mapping[str, Mapping[str, Tensor]]) -> Path:
    """Copy a model's folder with something added to some of its tensors."""
    shutil.copytree(folder, copy)
    for file, added in changes.items():
        tensors = load_file(copy / file)
        for key, tensor in added.items():
            tensors[key] = tensors[key] + tensor
        save_file(tensors, copy / file, {"format": "pt"})
    return copy
