"""What makes a run faster: exactly, or as far as it says."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sd_pipeline import PipelineError, Txt2Img, load_pipeline, name_of, resolve_dtype
from sd_sampler import GuidanceOptions
from sd_unet import UNet, dit_xl_2, scenes, sd15
from tests.tiny_model import tiny_parts

CPU = torch.device("cpu")


def draw(folder: Path, prompt: str = "a cat on a mat", **settings: object) -> np.ndarray:
    pipeline = load_pipeline(folder, device="cpu", batch_invariant=bool(settings.pop("alone", 0)))
    settings = {"num_steps": 4, "guidance_scale": 4.0, "width": 40, **settings}
    pictures = pipeline.txt2img(Txt2Img(prompt=prompt, **settings))
    return np.stack([np.asarray(picture.image) for picture in pictures])


def without_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sd_unet.kept_texts.KeptProjections.__call__",
        lambda _self, states, layers: [layer(states) for layer in layers],
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"prompt": "[a cat:two black dogs:2] on a mat"},
        {"prompt": "[a cat|a tree] on a mat"},
        {"prompt": "a cat AND night sky :0.7"},
        {"guidance": GuidanceOptions(interval=(0.2, 0.7))},
        {"guidance": GuidanceOptions(pag_scale=3.0)},
        {"count": 3, "batch_size": 2},
        {"count": 2, "batch_size": 2, "alone": True},
        {"sampler": "heun"},
    ],
)
def test_keeping_a_texts_keys_changes_no_bit(
    tiny_model: Path, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = draw(tiny_model, **settings)
    without_keeping(monkeypatch)
    assert np.array_equal(kept, draw(tiny_model, **settings))


def calls(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> int:
    ran = []
    through: Callable[..., torch.Tensor] = UNet.through_below

    def noted(self: UNet, *inputs: object) -> torch.Tensor:
        ran.append(1)
        return through(self, *inputs)

    with monkeypatch.context() as patch:
        patch.setattr(UNet, "through_below", noted)
        draw(tiny_model, **settings)
    return len(ran)


def test_of_so_many_steps_one_computes_the_whole_network(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"num_steps": 7, "sampler": "ddim"}
    for number, whole in ((1, 7), (2, 4), (3, 3), (10, 1)):
        assert calls(tiny_model, monkeypatch, reuse_features=number, **settings) == whole
    # A text that changes is seen at once, and outside of guidance another question is asked.
    prompt = "[a cat:two black dogs:1] on a mat"
    assert calls(tiny_model, monkeypatch, prompt=prompt, reuse_features=10, **settings) == 2
    interval = GuidanceOptions(interval=(0.5, 1.0))
    assert calls(tiny_model, monkeypatch, guidance=interval, reuse_features=10, **settings) == 2
    alone = {"count": 2, "batch_size": 2, "alone": True, **settings}
    assert calls(tiny_model, monkeypatch, reuse_features=10, **alone) == 2


def test_used_again_features_change_the_picture_and_are_told(tiny_model: Path) -> None:
    exact, near = draw(tiny_model), draw(tiny_model, reuse_features=2)
    assert not np.array_equal(exact, near)
    pipeline = load_pipeline(tiny_model, device="cpu")
    assert pipeline.resolve(Txt2Img(prompt="a cat", reuse_features=2)).reuse_features == 2
    assert np.array_equal(exact, draw(tiny_model))


def test_merged_tokens_change_the_picture_and_are_told(tiny_model: Path) -> None:
    assert not np.array_equal(draw(tiny_model), draw(tiny_model, merge_tokens=0.5))
    pipeline = load_pipeline(tiny_model, device="cpu")
    assert pipeline.resolve(Txt2Img(prompt="a cat", merge_tokens=0.5)).merge_tokens == 0.5
    for share in (-0.1, 0.8, float("nan")):
        with pytest.raises(PipelineError, match=r"merge-tokens is .*; it must be from 0"):
            Txt2Img(prompt="a cat", merge_tokens=share)
    with pytest.raises(PipelineError, match="does not go with perturbed-attention guidance"):
        Txt2Img(prompt="a cat", merge_tokens=0.5, guidance=GuidanceOptions(pag_scale=3.0))


def test_a_number_of_steps_out_of_range_is_refused() -> None:
    for number in (0, 11):
        with pytest.raises(PipelineError, match=f"reuse-features is {number}; it must be from 1"):
            Txt2Img(prompt="a cat", reuse_features=number)


@pytest.mark.parametrize(
    ("network", "quick", "wanted"),
    [
        (sd15(), True, "bf16"),
        (dit_xl_2(), True, "bf16"),
        (sd15(), False, "fp32"),
        (scenes(), True, "fp32"),
        (tiny_parts().unet.config, True, "fp32"),
        (None, True, "fp32"),
    ],
)
def test_large_networks_are_drawn_with_bf16_where_that_is_quick(
    network: object, quick: bool, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sd_pipeline.precision._is_quick_in_bfloat16", lambda: quick)
    assert name_of(resolve_dtype("auto", CPU, network)) == wanted  # type: ignore[arg-type]
    assert resolve_dtype("fp32", CPU, network) == torch.float32  # type: ignore[arg-type]
    assert resolve_dtype("auto", torch.device("cuda"), network) == torch.float16  # type: ignore[arg-type]


@pytest.mark.parametrize("why_not", [None, "no compiler"])
@pytest.mark.parametrize("name", ["amx", "avx512_bf16", "avx512_fp16"])
def test_slow_products_of_halves_are_for_our_own_kernels(
    name: str, why_not: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr("sd_pipeline.precision.processor", lambda: name)
    monkeypatch.setattr("sd_pipeline.precision.why_not_native", lambda _: why_not)
    wanted = "fp32" if name == "avx512_fp16" and why_not else "bf16"
    assert name_of(resolve_dtype("auto", CPU, sd15())) == wanted


def test_an_unknown_dtype_is_refused_before_the_model_is_opened(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="dtype is 'fp8'; it must be auto, fp32, fp16, bf16"):
        load_pipeline(tmp_path / "nothing", dtype="fp8")
