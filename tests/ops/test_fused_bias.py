"""A bias that is added within the product gives what torch's linear layer gives."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sd_ops import Linear, use_fast_paths

needs_product = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN"
)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Pretend that the processor has AMX; list the shapes that are multiplied with their bias."""
    monkeypatch.setattr("sd_ops.limits._HERE", "amx")
    from sd_ops import layers
    from sd_ops.fused_bias import linear_fused

    seen: list[torch.Size] = []

    def noted(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        seen.append(x.shape)
        return linear_fused(x, weight, bias)

    monkeypatch.setattr(layers, "linear_fused", noted)
    return seen


def layer_of(width: int, *, bias: bool = True) -> Linear:
    torch.manual_seed(0)
    layer = Linear(width, 48, bias=bias, dtype=torch.bfloat16)
    use_fast_paths(layer)
    return layer


def tokens(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).bfloat16()


@needs_product
@pytest.mark.parametrize("shape", [(2, 64, 40), (70, 40), (1, 1024, 320)])
@pytest.mark.parametrize("lies_across", [False, True])
def test_it_is_a_linear_layer(
    shape: tuple[int, ...], lies_across: bool, products: list[torch.Size]
) -> None:
    layer, x = layer_of(shape[-1]), tokens(*shape)
    if lies_across:
        x = x.transpose(-2, -1).contiguous().transpose(-2, -1)
    with torch.inference_mode():
        found = layer(x)
    assert products == [x.shape]
    wanted = F.linear(x.double(), layer.weight.double(), layer.bias.double())
    error = (found.double() - wanted).square().mean().sqrt() / wanted.std()
    assert found.dtype == torch.bfloat16
    assert error < 2e-3  # half of bfloat16's last digit


@needs_product
def test_what_may_not_or_need_not_is_torchs_own(products: list[torch.Size]) -> None:
    layer, x = layer_of(40), tokens(2, 64, 40)
    layer(x)  # a gradient is wanted
    with torch.inference_mode():
        layer(x[:1, :63])  # too few to be worth it
        layer_of(40, bias=False)(x)
        layer.float()(x.float())
    assert products == []


def test_without_that_product_it_is_torchs_own(
    products: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sd_ops.fused_bias._PRODUCT", None)
    layer, x = layer_of(40), tokens(2, 64, 40)
    with torch.inference_mode():
        assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    assert products == []
