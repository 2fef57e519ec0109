"""Tokens that go through layers in parts come out as they do together."""

import pytest
import torch
from torch import Tensor, nn

from sd_ops import Linear, Tokenwise, use_fast_paths
from sd_unet.transformer import FeedForward


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("shape", [(2, 2050, 16), (1, 4096, 16), (3, 2, 700, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_feed_forward_is_the_same_in_parts(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    layer, tokens = FeedForward(16).to(dtype), randn(*shape).to(dtype)
    sizes: list[int] = []
    layer.net[0].proj.register_forward_hook(lambda _, given, __: sizes.append(given[0].shape[-2]))
    with torch.inference_mode():
        wanted = layer(tokens)
        use_fast_paths(layer)
        found = layer(tokens)
    assert sizes[0] == shape[-2]
    assert sum(sizes[1:]) == tokens[..., 0].numel()
    assert len(sizes) == 1 + -(-sum(sizes[1:]) // 1024)
    assert found.shape == wanted.shape
    error = (found.double() - wanted.double()).square().mean().sqrt() / wanted.double().std()
    assert error < torch.finfo(dtype).eps


@pytest.mark.parametrize("number", [4095, 5000])
def test_few_tokens_and_gradients_go_the_whole_way(number: int) -> None:
    layer, asked = Tokenwise(Linear(4, 6), nn.SiLU()), []
    layer[1].register_forward_hook(lambda *_: asked.append(1))
    use_fast_paths(layer)
    layer(randn(1, number, 4).requires_grad_()).sum().backward()
    assert asked == [1]
    with torch.inference_mode():
        layer(randn(1, number, 4))
    assert len(asked) == (2 if number == 4095 else 6)
    assert list(layer.state_dict()) == ["0.weight", "0.bias"]
