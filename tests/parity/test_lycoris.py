"""Files of LyCORIS' own modules compute here what they compute there."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lycoris.modules import boft, diag_oft, full, glora, ia3, locon, loha, lokr, norms
from safetensors.torch import save_file
from torch import nn

from sd_adapters import AdapterError, Lora, load_loras

TARGETS: dict[str, Callable[[], nn.Linear | nn.Conv2d]] = {
    "linear": lambda: nn.Linear(48, 32),
    "3x3": lambda: nn.Conv2d(24, 32, 3, stride=2, padding=1),
    "1x1": lambda: nn.Conv2d(24, 32, 1),
}
NORMS: dict[str, Callable[[], nn.Module]] = {
    "layer": lambda: nn.LayerNorm(24, eps=1e-3),
    "group": lambda: nn.GroupNorm(4, 24, eps=1e-3),
}
Options = Mapping[str, Any]
OPTIONS: list[Options] = [
    {"use_tucker": tucker, "weight_decompose": dora, "wd_on_out": rows}
    for tucker, dora, rows in product((False, True), (False, True), (False, True))
    if dora or rows
]
LOKR_ONLY = ({"decompose_both": True, "factor": 8}, {"full_matrix": True})
TURNS: list[Options] = [
    {"rescaled": rescaled, "constraint": constraint}
    for rescaled, constraint in product((False, True), (0, 0.01))
]
OTHERS: dict[str, tuple[Any, list[Options]]] = {
    "full": (full.FullModule, [{}]),
    "ia3": (ia3.IA3Module, [{}, {"train_on_input": True}]),
    "glora": (glora.GLoRAModule, [{}, {"use_scalar": True}]),
    "oft": (diag_oft.DiagOFTModule, TURNS),
    "boft": (boft.ButterflyOFTModule, TURNS),
}


def shaken(peer: nn.Module, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            if "dora" in name or "rescale" in name:
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
            else:
                parameter.normal_(std=0.5)
    return peer


def loaded(peer: Any, model: nn.Module, path: Path) -> Lora:
    tensors = peer.custom_state_dict() or peer.state_dict()
    save_file(
        {f"lora_unet_t.{key}": t.detach().clone().contiguous() for key, t in tensors.items()}, path
    )
    return load_loras(path, {"lora_unet": model})["lora_unet"]


def compare(peer: Any, module: nn.Module, x: torch.Tensor, path: Path, told: object) -> None:
    plain, expected = module(x), peer(x)
    lora = loaded(peer, nn.ModuleDict({"t": module}), path)
    lora.inject(nn.ModuleDict({"t": module}))
    atol = 1e-5 * float(expected.abs().max())
    assert not torch.allclose(plain, expected, atol=1e-3, rtol=0), told
    assert torch.allclose(module(x), expected, atol=atol, rtol=0), told
    lora.fuse()
    assert torch.allclose(module(x), expected, atol=atol, rtol=0), told
    lora.eject()
    assert torch.equal(module(x), plain), told


def inputs(target: str) -> torch.Tensor:
    return torch.randn(2, 5, 48) if target == "linear" else torch.randn(2, 24, 9, 9)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["locon", "loha", "lokr"])
@torch.no_grad()
def test_its_files_compute_the_same(kind: str, target: str, tmp_path: Path) -> None:
    peer_class = {
        "locon": locon.LoConModule,
        "loha": loha.LohaModule,
        "lokr": lokr.LokrModule,
    }[kind]
    extras = ({}, {"rs_lora": True}, *(LOKR_ONLY if kind == "lokr" else ()))
    for seed, (options, extra) in enumerate(product(OPTIONS, extras)):
        torch.manual_seed(seed)
        module = TARGETS[target]()
        peer = peer_class("x", module, 1.0, 3, 2.0, bypass_mode=False, **options, **extra)
        compare(shaken(peer, seed), module, inputs(target), tmp_path / "a.safetensors", options)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", OTHERS)
@torch.no_grad()
def test_files_of_its_other_kinds_compute_the_same(kind: str, target: str, tmp_path: Path) -> None:
    peer_class, all_options = OTHERS[kind]
    for seed, options in enumerate(all_options):
        torch.manual_seed(seed)
        module = TARGETS[target]()
        peer = peer_class("x", deepcopy(module), 1.0, 4, 2.0, bypass_mode=False, **options)
        peer.apply_to()  # which takes the weight over
        compare(shaken(peer, seed), module, inputs(target), tmp_path / "a.safetensors", options)


@pytest.mark.parametrize("kind", NORMS)
@torch.no_grad()
def test_its_changes_of_norms_compute_the_same(kind: str, tmp_path: Path) -> None:
    module = NORMS[kind]()
    peer = norms.NormModule("x", deepcopy(module))
    peer.apply_to()
    x = torch.randn(2, 24, 24) + 1
    compare(shaken(peer, 0), module, x, tmp_path / "norm.safetensors", kind)


def test_blocks_that_do_not_turn_the_rows_are_refused(tmp_path: Path) -> None:
    for shape in ((5, 4, 4), (2, 16, 2, 2, 2), (9, 8, 4, 4), (0, 8, 4, 4), (8, 4, 3)):
        path = tmp_path / "oft.safetensors"
        tensors = {"oft_blocks": torch.zeros(shape), "alpha": torch.tensor(0.0)}
        save_file({f"lora_unet_t.{key}": tensor for key, tensor in tensors.items()}, path)
        with pytest.raises(AdapterError, match=r"lora_unet_t\.oft_blocks"):
            load_loras(path, {"lora_unet": nn.ModuleDict({"t": nn.Linear(8, 32)})})
