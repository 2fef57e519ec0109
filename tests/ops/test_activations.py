"""Activations that keep little give what torch's give, and the same gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd_ops import geglu, group_norm, layer_norm, norm_silu


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def kept_by(function: object, x: Tensor) -> int:
    """Return how many values are kept for the backward pass, beside the parameters."""
    kept: dict[int, int] = {}

    def noted(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and not tensor.is_leaf:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(noted, lambda tensor: tensor):
        function(x)  # type: ignore[operator]
    return sum(kept.values())


def test_geglu_gives_the_product_and_its_gradient() -> None:
    x, weights = randn(2, 7, 24).requires_grad_(), randn(2, 7, 12)
    hidden, gate = x.chunk(2, dim=-1)
    wanted = hidden * F.gelu(gate)
    found = geglu(x)
    assert torch.equal(found, wanted)
    ours, theirs = (torch.autograd.grad(out, x, weights)[0] for out in (found, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    assert torch.equal(geglu(x.detach()), wanted.detach())


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normed_silu_gives_torchs_and_its_gradients(
    layout: torch.memory_format, frozen: bool
) -> None:
    norm = nn.GroupNorm(4, 16)
    for index, parameter in enumerate(norm.parameters()):
        parameter.data = randn(16) + index
    norm.requires_grad_(not frozen)
    x = randn(2, 16, 5, 6).contiguous(memory_format=layout).requires_grad_()
    wanted, found = F.silu(norm(x)), norm_silu(x, norm)
    assert torch.equal(found, wanted)
    learnt = [x, *(p for p in norm.parameters() if p.requires_grad)]
    ours, theirs = (torch.autograd.grad(out, learnt, torch.ones_like(x)) for out in (found, wanted))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_a_norms_hooks_are_heard() -> None:
    norm, x = nn.GroupNorm(4, 16), randn(1, 16, 4, 4).requires_grad_()
    norm.register_forward_hook(lambda *_: torch.ones(1))
    assert torch.equal(norm_silu(x, norm), F.silu(torch.ones(1)))


def test_less_is_kept_than_by_torch() -> None:
    norm = nn.GroupNorm(4, 16)
    picture, tokens = randn(1, 16, 8, 8).requires_grad_(), randn(1, 64, 32).requires_grad_()
    plain = kept_by(lambda x: F.silu(norm(x * 1)), picture)
    recomputed = kept_by(lambda x: norm_silu(x * 1, norm), picture)
    assert recomputed < plain
    assert kept_by(lambda x: norm_silu(x * 1, norm, recomputed=False), picture) > recomputed
    plain = kept_by(lambda x: (x * 1)[..., :16] * F.gelu((x * 1)[..., 16:]), tokens)
    assert kept_by(lambda x: geglu(x * 1), tokens) < plain


@pytest.mark.parametrize("recomputed", [True, False])
def test_what_is_added_before_a_norm_learns(recomputed: bool) -> None:
    norm, x = nn.GroupNorm(4, 16), randn(2, 16, 5, 6).requires_grad_()
    added = randn(2, 16).requires_grad_()
    wanted = F.silu(norm(x + added[:, :, None, None]))
    found = norm_silu(x, norm, added=added, recomputed=recomputed)
    torch.testing.assert_close(found, wanted)
    ours, theirs = (torch.autograd.grad(out.sum(), (x, added)) for out in (found, wanted))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_a_layer_norm_that_learns_is_torchs() -> None:
    norm, x = nn.LayerNorm(16), randn(2, 5, 16).requires_grad_()
    assert torch.equal(layer_norm(x, norm), norm(x))
    assert layer_norm(x, norm).grad_fn is not None


@pytest.mark.parametrize("channels", [64, 320])
@torch.inference_mode()
def test_a_norm_of_halves_in_channels_last_is_as_exact_as_torchs(channels: int) -> None:
    norm = nn.GroupNorm(32, channels)
    norm.weight.copy_(randn(channels))
    norm.bias.copy_(randn(channels))
    x = randn(2, channels, 12, 10).bfloat16().contiguous(memory_format=torch.channels_last)
    exact = norm.double()(x.double())
    norm = norm.bfloat16()
    found, plain = group_norm(x, norm), norm(x)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - exact).square().mean() <= 1.05 * (plain - exact).square().mean()
    off, apart = (y - F.silu(exact) for y in (norm_silu(x, norm), F.silu(plain)))
    assert off.square().mean() <= 1.05 * apart.square().mean()


@torch.inference_mode()
def test_hooks_of_a_norm_are_heard() -> None:
    norm, x = nn.GroupNorm(4, 16).bfloat16(), randn(1, 16, 4, 4).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last)
    norm.register_forward_hook(lambda _module, _inputs, out: out + 1)
    assert torch.equal(group_norm(x, norm), norm(x))
    assert torch.equal(norm_silu(x, norm), F.silu(norm(x)))
