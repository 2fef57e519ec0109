"""A layer with its gate or its shortcut gives what it gives without, and hides from nobody."""

import importlib

import pytest
import torch
from torch import Tensor, nn

from sd_ops import (
    Conv2d,
    Linear,
    Tokenwise,
    gated,
    geglu,
    hold_as_int8,
    residual,
    use_fast_paths,
)
from sd_ops.native.library import why_not_native
from sd_unet import UNet, UNetConfig

FUSED = importlib.import_module("sd_ops.fused_layers")
LIMITS = importlib.import_module("sd_ops.limits")

HALVES = torch.bfloat16
NEEDED = why_not_native(HALVES)
needs_kernels = pytest.mark.skipif(NEEDED is not None, reason=str(NEEDED))


@pytest.fixture
def slow_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this processor be one whose products of bfloat16 are slower than float32's."""
    monkeypatch.setattr(LIMITS, "processor", lambda: "avx512_fp16")


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def picture(channels: int, side: int = 12) -> Tensor:
    return randn(2, channels, side, side).to(HALVES).contiguous(memory_format=torch.channels_last)


def declined(layer: nn.Module, name: str, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that notes of every asking whether the layer declined."""
    found: list[bool] = []
    true = getattr(type(layer), name)

    def noted(self: nn.Module, *given: Tensor, **more: Tensor) -> Tensor | None:
        out: Tensor | None = true(self, *given, **more)
        found.append(out is None)
        return out

    monkeypatch.setattr(type(layer), name, noted)
    return found


CASES = [
    # layer, what it is given, whether it does it in one go
    (lambda: Linear(64, 96), randn(2, 40, 64).to(HALVES), True),
    (lambda: Linear(64, 96), randn(1, 7, 64).to(HALVES), False),  # few tokens
    (lambda: Linear(64, 40), randn(2, 40, 64).to(HALVES), False),  # no whole panels
    (lambda: Conv2d(64, 96, 1), picture(64), True),
    (lambda: Conv2d(64, 96, 3, padding=1), picture(64), True),
    (lambda: Conv2d(64, 96, 3), picture(64), True),
    (lambda: Conv2d(64, 96, 3, padding=1, bias=False), picture(64), True),
    (lambda: Conv2d(64, 96, 3, padding=1, stride=2), picture(64), False),
    (lambda: Conv2d(64, 96, 3, padding="same"), picture(64), False),
    (lambda: Conv2d(64, 96, 3, padding=1), picture(64, 3), False),  # few tiles
]


@needs_kernels
@pytest.mark.usefixtures("slow_pairs")
@pytest.mark.parametrize("case", range(len(CASES)))
@torch.no_grad()
def test_a_shortcut_is_added(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    make, x, fused = CASES[case]
    layer = make().to(HALVES)
    use_fast_paths(layer)
    plain = layer(x)
    shortcut = randn(*plain.shape).to(HALVES)
    if plain.dim() == 4:
        shortcut = shortcut.contiguous(memory_format=torch.channels_last)
    asked = declined(layer, "with_shortcut", monkeypatch)
    found = residual(layer, x, shortcut=shortcut)
    assert asked == [not fused]
    exact = shortcut.double() + layer.double()(x.double())
    assert found.shape == exact.shape
    off, allowed = ((one - exact).norm() for one in (found, plain + shortcut))
    assert off < 1.1 * allowed  # it is rounded once, not twice


@needs_kernels
@pytest.mark.usefixtures("slow_pairs")
@torch.no_grad()
def test_a_gate_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    for outputs, tokens, fused in ((128, 50, True), (96, 50, False), (128, 7, False)):
        for bias in (True, False):
            with monkeypatch.context() as patch:
                layer = Linear(80, outputs, bias=bias).to(HALVES)
                use_fast_paths(layer)
                x = randn(1, tokens, 80).to(HALVES)
                asked = declined(layer, "gated", patch)
                found, plain = gated(layer, x), geglu(layer(x))
                assert asked == [not fused]
                exact = geglu(layer.double()(x.double()))
                assert found.shape == exact.shape == (1, tokens, outputs // 2)
                off, allowed = ((one - exact).norm() for one in (found, plain))
                assert off < 1.1 * allowed


@needs_kernels
@pytest.mark.usefixtures("slow_pairs")
@torch.no_grad()
def test_many_tokens_have_their_shortcuts() -> None:
    layers = Tokenwise(Linear(64, 64), nn.Identity(), Linear(64, 32)).to(HALVES)
    use_fast_paths(layers)
    x, shortcut = randn(2, 2500, 64).to(HALVES), randn(2, 2500, 32).to(HALVES)
    found = residual(layers, x, shortcut=shortcut)
    torch.testing.assert_close(found, shortcut + layers(x), atol=0.02, rtol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, HALVES])
def test_who_looks_at_a_layer_sees_its_result(dtype: torch.dtype) -> None:
    class Other(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    x, shortcut = randn(1, 40, 64).to(dtype), randn(1, 40, 64).to(dtype)
    for layer in (Linear(64, 64), Linear(64, 64), Linear(64, 64), Other(64, 64)):
        layer.to(dtype)
        use_fast_paths(layer)
    seen: list[Tensor] = []
    with torch.no_grad():
        hooked = Linear(64, 64).to(dtype)
        use_fast_paths(hooked)
        hooked.register_forward_hook(lambda *given: seen.append(given[2]))
        out = residual(hooked, x, shortcut=shortcut)
        assert torch.equal(out, shortcut + seen[0])
        assert torch.equal(gated(hooked, x), geglu(seen[0]))
        before = Linear(64, 64).to(dtype)
        use_fast_paths(before)
        before.register_forward_pre_hook(lambda _, given: (0 * given[0],))
        assert torch.equal(
            residual(before, x, shortcut=shortcut), shortcut + before(torch.zeros_like(x))
        )
        other = Other(64, 64).to(dtype)
        use_fast_paths(other)
        assert torch.equal(residual(other, x, shortcut=shortcut), shortcut + other(x))
        own = Linear(64, 64).to(dtype)
        use_fast_paths(own)
        own.forward = lambda x: 3 * x  # type: ignore[method-assign]
        assert torch.equal(residual(own, x, shortcut=shortcut), shortcut + 3 * x)


@torch.no_grad()
def test_int8_weights_are_made_whole_once_a_call() -> None:
    network = nn.Sequential(Linear(64, 64)).to(HALVES)
    use_fast_paths(network)
    hold_as_int8(network)
    (layer,), tokens, made = network, randn(1, 40, 64).to(HALVES), []
    layer.parametrizations.weight[0].register_forward_hook(lambda *_: made.append(1))
    gated(layer, tokens)
    residual(layer, tokens, shortcut=tokens)
    assert len(made) == 2


def test_gradients_go_both_ways() -> None:
    layer = Linear(64, 64)
    use_fast_paths(layer)
    x, shortcut = randn(1, 40, 64).requires_grad_(), randn(1, 40, 64).requires_grad_()
    residual(layer, x, shortcut=shortcut).sum().backward()
    assert torch.equal(shortcut.grad, torch.ones_like(shortcut))
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand_as(x))


@needs_kernels
@pytest.mark.usefixtures("slow_pairs")
@torch.no_grad()
def test_a_network_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    config = UNetConfig(
        block_out_channels=(64, 128),
        attention_levels=(True, False),
        cross_attention_dim=64,
        num_heads=2,
        layers_per_block=1,
    )
    network = UNet(config).eval()
    for weight in network.parameters():  # some begin as nought
        if weight.dim() > 1:
            weight.copy_(randn(*weight.shape) / weight[0].numel() ** 0.5)
    network = network.to(HALVES)
    given = picture(4, 24), torch.tensor([500, 500]), randn(2, 7, 64).to(HALVES)
    exact = network.double()(*(one.double() if one.is_floating_point() else one for one in given))
    network.to(HALVES)
    use_fast_paths(network, False)
    plain = network(*given)
    use_fast_paths(network)
    asked = [
        declined(layer, name, monkeypatch)
        for layer, name in ((Linear(1, 1), "gated"), (Conv2d(1, 1, 1), "with_shortcut"))
    ]
    found = network(*given)
    assert all(not all(one) for one in asked)
    assert (found - exact).norm() < 1.1 * (plain - exact).norm()
