"""Networks that are on the accelerator only while they compute: when they move, and to the same."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sd_adapters import Hypernetwork, HypernetworkConfig, save_hypernetwork
from sd_pipeline import AdapterUse, Img2Img, Pipeline, Txt2Img, load_pipeline
from sd_pipeline.offload import Offload
from sdcli.main import run

CPU = torch.device("cpu")
PROMPT = "a cat on a mat"


@pytest.fixture
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


@pytest.fixture
def moves(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Note which network goes where: "there" and "home" are both the CPU here, in turns."""
    parts = pipeline.parts
    names = {id(parts.text_encoder): "text", id(parts.unet): "unet", id(parts.vae): "vae"}
    noted: list[str] = []
    away: set[str] = set()
    to = nn.Module.to

    def moved(self: nn.Module, *arguments: object, **named: object) -> nn.Module:
        name = names.get(id(self))
        if name is not None:
            assert arguments == (CPU,)
            noted.append(f"{name} {'home' if name in away else 'there'}")
            away.symmetric_difference_update({name})
            assert len(away) <= 1, "two networks are there at once"
        return to(self, *arguments, **named)

    monkeypatch.setattr(nn.Module, "to", moved)
    yield noted
    assert not away, "a network was left there"


def drawn(pipeline: Pipeline, request: Txt2Img) -> np.ndarray:
    return np.stack([np.asarray(picture.image) for picture in pipeline.draw(request)])


def both(*names: str) -> list[str]:
    return [f"{name} {way}" for name in names for way in ("there", "home")]


def test_a_picture_from_text_moves_each_network_once(pipeline: Pipeline, moves: list[str]) -> None:
    request = Txt2Img(prompt=PROMPT, num_steps=3, count=2, batch_size=2)
    exact = drawn(pipeline, request)
    assert moves == []
    assert np.array_equal(drawn(replace(pipeline, offload=True), request), exact)
    assert moves == both("text", "unet", "vae")


def test_a_picture_from_a_picture_is_encoded_first(pipeline: Pipeline, moves: list[str]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    request = Img2Img(prompt=PROMPT, image=image, num_steps=4)
    exact = drawn(pipeline, request)
    assert np.array_equal(drawn(replace(pipeline, offload=True), request), exact)
    assert moves == both("vae", "text", "unet", "vae")


def test_a_preview_is_fitted_there(pipeline: Pipeline, moves: list[str]) -> None:
    latents = torch.randn(1, 4, 8, 8)
    (wanted,) = pipeline.previewer()(latents)
    (found,) = replace(pipeline, offload=True).previewer()(latents)
    assert found.tobytes() == wanted.tobytes()
    assert moves == both("vae")


def test_whatever_ends_a_run_the_network_goes_home(pipeline: Pipeline, moves: list[str]) -> None:
    def ended(_step: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(replace(pipeline, offload=True).txt2img(Txt2Img(prompt=PROMPT, num_steps=2), ended))
    assert moves == both("text", "unet")


def test_adapters_are_where_the_networks_will_compute(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Hypernetwork.create(pipeline.parts.unet, HypernetworkConfig(), widths=[32])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    save_hypernetwork(tmp_path / "hyper.pt", network)
    use = AdapterUse(kind="hypernetwork", file=str(tmp_path / "hyper.pt"))
    request = Txt2Img(prompt=PROMPT, num_steps=1, adapters=(use,))
    exact = drawn(pipeline, request)
    placed: list[object] = []
    to = nn.Module.to

    def noted(self: nn.Module, *arguments: object, **named: object) -> nn.Module:
        if isinstance(self, Hypernetwork):
            placed.append(arguments[0])
        return to(self, *arguments, **named)

    monkeypatch.setattr(nn.Module, "to", noted)
    assert np.array_equal(drawn(replace(pipeline, offload=True), request), exact)
    assert placed == [CPU]


def test_weights_that_were_moved_while_drawing_can_be_written_to() -> None:
    layer = nn.Linear(2, 2)
    with torch.inference_mode(), Offload(device=CPU, active=True).using(layer.double()):
        layer.float()
    with torch.no_grad():
        layer.bias.zero_()


def test_on_the_cpu_it_is_told_to_do_nothing(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not load_pipeline(tiny_model, device="cpu", offload=True).offload
    given = ["txt2img", "a cat", "--model", str(tiny_model), "--out", str(tmp_path), "--steps", "1"]
    assert run([*given, "--device", "cpu", "--offload"]) == 0
    told = capsys.readouterr().err
    assert "--offload does nothing on the cpu" in told
