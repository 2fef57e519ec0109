import importlib
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sd_ops import ATTENTION_BACKENDS, AttentionUnavailable, attention, resolve_backend
from sd_ops.attention_backward import attention_by_products_backward

HERE = torch.device("cpu")
CARD = torch.device("cuda")

# By its path, for the package hands on the function under the same name.
MODULE = importlib.import_module("sd_ops.attention")


def qkv(queries: int = 20, keys: int = 12, width: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, queries, width), (2, 3, keys, width), (2, 3, keys, width)]
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    return q, k, v


@pytest.mark.parametrize("backend", ["auto", "sdpa", "chunked"])
def test_equal_keys_give_the_mean_of_the_values(backend: str) -> None:
    q, _, v = qkv()
    out = attention(q, torch.ones_like(v), v, backend=backend)
    mean = v.mean(dim=2, keepdim=True).expand_as(out)
    torch.testing.assert_close(out, mean, atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", ["sdpa", "chunked"])
def test_a_key_far_ahead_gives_its_value(backend: str) -> None:
    q, k, v = qkv(queries=1)
    k = torch.zeros_like(k)
    k[:, :, 5] = 1e4 * q[:, :, 0]
    out = attention(q, k, v, backend=backend)
    torch.testing.assert_close(out[:, :, 0], v[:, :, 5])


def test_scores_too_many_for_one_chunk_give_what_sdpa_gives() -> None:
    shape = (8, 8, 4096, 4)  # 64 queries at a time
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(shape, generator=generator) for _ in range(3))
    q = q[:, :, :130]
    expected = attention(q, k, v, backend="sdpa")
    torch.testing.assert_close(attention(q, k, v, backend="chunked"), expected, atol=1e-5, rtol=0)


def test_gradients_agree_between_chunked_and_sdpa() -> None:
    gradients = []
    for backend in ("sdpa", "chunked"):
        q, k, v = (t.requires_grad_() for t in qkv())
        attention(q, k, v, backend=backend).square().sum().backward()
        gradients.append((q.grad, k.grad, v.grad))
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("keys", [12, 300])
def test_auto_learns_in_half_precision_as_in_double(keys: int) -> None:
    gradients = []
    for dtype in (torch.bfloat16, torch.float64):
        q, k, v = (t.bfloat16().to(dtype).requires_grad_() for t in qkv(keys=keys))
        attention(q, k, v).sum(dim=2).square().sum().backward()
        gradients.append((q.grad, k.grad, v.grad))
    for half, exact in zip(*gradients, strict=True):
        assert half.dtype == torch.bfloat16
        apart = (half.double() - exact).norm() / exact.norm()
        assert apart < 0.02


@pytest.mark.parametrize("scores", [2**21, 100])
def test_a_backward_by_products_is_that_of_torch(
    scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sd_ops.attention_backward._SCORES", scores)
    gradients = []
    for attend in (F.scaled_dot_product_attention, attention_by_products_backward):
        q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in qkv(70, 33))
        q, k, v = (t.requires_grad_() for t in (q, k, v))
        out = attend(q, k, v)
        out.pow(3).sum().backward()
        gradients.append((out, q.grad, k.grad, v.grad))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("peaked", [0.3, 1.0, 4.0])
def test_a_backward_by_products_loses_about_as_much_as_products_and_softmax(peaked: float) -> None:
    def gradients(attend: Callable[..., torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        q, k, v, grad = (torch.randn(1, 2, 1024, 40, generator=generator) for _ in range(4))
        inputs = [t.bfloat16().to(dtype).requires_grad_() for t in (peaked * q, k, v)]
        attend(*inputs).backward(grad.bfloat16().to(dtype))
        return [t.grad.double() for t in inputs if t.grad is not None]

    exact = gradients(F.scaled_dot_product_attention, torch.float64)
    ours = gradients(attention_by_products_backward, torch.bfloat16)
    theirs = gradients(partial(attention, backend="chunked"), torch.bfloat16)
    for true, one, other in zip(exact, ours, theirs, strict=True):
        assert (one - true).norm() < 1.4 * (other - true).norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_out_as_it_went_in(dtype: torch.dtype) -> None:
    q, k, v = (t.to(dtype) for t in qkv())
    out = attention(q, k, v, backend="chunked")
    assert out.dtype == dtype
    exact = attention(q.double(), k.double(), v.double(), backend="sdpa")
    torch.testing.assert_close(out.double(), exact, atol=0.03, rtol=0.03)


def test_auto_takes_our_kernel_where_there_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "why_not_native", lambda _: None)
    assert resolve_backend("auto", HERE, torch.float32) == "native"
    monkeypatch.setattr(MODULE, "why_not_native", lambda _: "no compiler")
    assert resolve_backend("auto", HERE, torch.float32) == "sdpa"


def test_our_kernel_by_name_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AttentionUnavailable, match="its kernels are for CPUs, not 'cuda'; use 'a"):
        resolve_backend("native", CARD, torch.float32)
    with pytest.raises(AttentionUnavailable, match=r"not torch\.float64; use 'auto'|use 'auto'"):
        resolve_backend("native", HERE, torch.float64)
    monkeypatch.setattr(MODULE, "why_not_native", lambda _: "no compiler")
    with pytest.raises(AttentionUnavailable, match="not to be had: no compiler; use 'auto'"):
        resolve_backend("native", HERE, torch.float32)
    monkeypatch.setattr(MODULE, "library", lambda *_: "it does not build")
    with pytest.raises(AttentionUnavailable, match="not to be had: it does not build; use 'auto'"):
        attention(*qkv(), backend="native")


def test_every_name_but_auto_resolves_to_itself_or_says_why() -> None:
    for name in ATTENTION_BACKENDS[1:]:
        try:
            assert resolve_backend(name, HERE, torch.float32) == name
        except AttentionUnavailable:
            assert name in ("xformers", "native")


@pytest.mark.parametrize("name", ["flash", "", "SDPA"])
def test_an_unknown_backend_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(AttentionUnavailable, match="auto, xformers, native, sdpa, chunked"):
        resolve_backend(name, HERE, torch.float32)


def test_forced_xformers_without_a_card_says_so_and_the_mend_in_one_line() -> None:
    with pytest.raises(AttentionUnavailable, match="needs a CUDA device, not 'cpu'; use") as caught:
        attention(*qkv(), backend="xformers")
    assert "\n" not in str(caught.value)


def test_forced_xformers_refuses_a_type_it_has_no_kernel_for() -> None:
    with pytest.raises(AttentionUnavailable, match=r"not torch.float64; use"):
        resolve_backend("xformers", CARD, torch.float64)


def test_forced_xformers_that_is_not_installed_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = (None, "it is not installed")
    monkeypatch.setattr(MODULE, "_load_xformers", lambda: absent)
    with pytest.raises(AttentionUnavailable, match="it is not installed; `pip install xformers`"):
        resolve_backend("xformers", CARD, torch.float16)
    assert resolve_backend("auto", CARD, torch.float16) == "sdpa"


def test_an_xformers_without_a_kernel_is_passed_over_by_auto_and_named_when_forced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError("No operator found for `memory_efficient_attention_forward`")

    monkeypatch.setattr(MODULE, "_load_xformers", lambda: (no_kernel, ""))
    monkeypatch.setattr(MODULE, "_why_not_xformers", lambda *_: None)
    q, k, v = qkv()
    torch.testing.assert_close(attention(q, k, v), attention(q, k, v, backend="sdpa"))
    with pytest.raises(AttentionUnavailable, match=r"no kernel .* head width 16 .* use 'sdpa'"):
        attention(q, k, v, backend="xformers")


def test_xformers_is_handed_its_own_layout_and_its_result_turned_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        assert q.shape == (2, 20, 3, 16)
        assert k.shape == v.shape == (2, 12, 3, 16)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        return attention(q, k, v, backend="sdpa").transpose(1, 2)

    monkeypatch.setattr(MODULE, "_load_xformers", lambda: (kernel, ""))
    monkeypatch.setattr(MODULE, "_why_not_xformers", lambda *_: None)
    q, k, v = qkv()
    out = attention(q, k, v, backend="xformers")
    torch.testing.assert_close(out, attention(q, k, v, backend="sdpa"))


def test_halves_that_want_gradients_go_by_sdpa() -> None:
    shape = (1, 1, 1024, 8)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(shape, generator=generator).bfloat16() for _ in range(3))
    q.requires_grad_()
    attention(q, k, v).float().sum().backward()
    assert q.grad is not None
