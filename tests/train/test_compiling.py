"""Compiled blocks learn the same, under the same names."""

from pathlib import Path

import pytest
import torch
from torch import nn
from toy import Recorder, ToyTask, config

from sd_adapters import Lora, LoraConfig
from sd_checkpoint import Checkpoint
from sd_ops import blocks_of
from sd_train import TrainError, train
from sd_train.compiling import compile_blocks, uncompiled, with_room_for_variants
from sd_unet import UNet, UNetConfig


class Blocks(ToyTask):
    """The toy with two blocks, which may be compiled."""

    def __init__(self) -> None:
        super().__init__(random=False)
        blocks = nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1)])
        torch.manual_seed(0)
        for parameter in blocks.parameters():
            nn.init.normal_(parameter, std=0.1)
        self.net = Chain(blocks)
        self.networks = (self.net,)


class Chain(nn.Module):
    def __init__(self, blocks: nn.ModuleList) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


@pytest.fixture(autouse=True)
def _no_code_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    # Code generation takes seconds a block; tracing is what may go wrong here.
    monkeypatch.setattr("sd_ops.compiling._BACKEND", "aot_eager")
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_run_is_the_plain_one_and_says_how_long_compiling_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr("sd_ops.compiling._BACKEND", backend)
    plain = train(Blocks(), config(steps=4, warmup_steps=0), tmp_path / "plain")
    recorder = Recorder()
    settings = config(steps=4, warmup_steps=0, compile=True)
    compiled = train(Blocks(), settings, tmp_path / "compiled", recorder)
    for name in ("weights", "ema", "optimizer"):
        ours = Checkpoint.open(compiled.checkpoint / f"{name}.safetensors")
        theirs = Checkpoint.open(plain.checkpoint / f"{name}.safetensors")
        assert ours.keys() == theirs.keys()
        for key in ours:
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-4, atol=1e-5)
    assert any(line.startswith("compiling 2 blocks") for line in recorder.messages)
    assert any("s of the first step" in line for line in recorder.messages)


def test_a_method_without_networks_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="but this method names nothing"):
        train(ToyTask(), config(compile=True), tmp_path)


def test_a_unets_blocks_compile_with_an_adapter_in_them_and_checkpointing() -> None:
    torch.manual_seed(0)
    unet = UNet(
        UNetConfig(
            sample_size=4,
            block_out_channels=(32,),
            attention_levels=(True,),
            layers_per_block=1,
            cross_attention_dim=8,
            num_heads=2,
        )
    ).requires_grad_(False)
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.1)
    lora = Lora.create(unet, LoraConfig(rank=2, alpha=2, targets=("to_q", "to_v")))
    lora.inject(unet)
    for parameter in lora.parameters():
        nn.init.normal_(parameter, std=0.1)
    inputs = torch.randn(1, 4, 4, 4), torch.tensor([3.0]), torch.randn(1, 5, 8)

    def gradients() -> list[torch.Tensor]:
        loss = unet(*inputs).square().sum()
        return list(torch.autograd.grad(loss, list(lora.parameters())))

    keys, plain = list(unet.state_dict()), gradients()
    task = ToyTask()
    task.networks = (unet,)  # type: ignore[attr-defined]
    assert compile_blocks(task) == len(list(blocks_of(unet)))
    with with_room_for_variants(True):
        for checkpointing in (False, True):
            unet.gradient_checkpointing = checkpointing
            for found, wanted in zip(gradients(), plain, strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        with uncompiled():
            assert all(map(torch.equal, gradients(), plain))
    assert list(unet.state_dict()) == keys
