"""Files of LyCORIS' own modules compute here what they compute there."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from lycoris.modules import locon, loha, lokr
from safetensors.torch import save_file
from torch import nn

from sd_adapters import load_loras

TARGETS: dict[str, Callable[[], nn.Linear | nn.Conv2d]] = {
    "linear": lambda: nn.Linear(48, 32),
    "3x3": lambda: nn.Conv2d(24, 32, 3, stride=2, padding=1),
    "1x1": lambda: nn.Conv2d(24, 32, 1),
}
OPTIONS = [
    {"use_tucker": tucker, "weight_decompose": dora, "wd_on_out": rows}
    for tucker, dora, rows in product((False, True), (False, True), (False, True))
    if dora or rows
]
LOKR_ONLY = ({"decompose_both": True, "factor": 8}, {"full_matrix": True})


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
        for name, parameter in peer.named_parameters():
            if "dora" in name:
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
            else:
                parameter.normal_(std=0.5)
        x = torch.randn(2, 5, 48) if target == "linear" else torch.randn(2, 24, 9, 9)
        expected = peer(x)
        tensors = peer.custom_state_dict().items()
        tensors = {f"lora_unet_t.{key}": t.detach().clone().contiguous() for key, t in tensors}
        save_file(tensors, tmp_path / "lycoris.safetensors")
        model = nn.ModuleDict({"t": module})
        lora = load_loras(tmp_path / "lycoris.safetensors", {"lora_unet": model})["lora_unet"]
        lora.inject(model)
        atol = 1e-5 * float(expected.abs().max())
        assert torch.allclose(module(x), expected, atol=atol, rtol=0), (options, extra)
        lora.fuse()
        assert torch.allclose(module(x), expected, atol=atol, rtol=0), (options, extra)
