"""The UNet computed by OpenVINO: torch's numbers, what it refuses, and that it tells nobody."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sd_pipeline import (
    AdapterUse,
    OpenVINOUNet,
    Pipeline,
    PipelineError,
    Txt2Img,
    load_openvino,
    load_pipeline,
    load_unet,
)
from sd_sampler import GuidanceOptions
from sd_unet import Backbone
from sdcli.main import run
from tests.tiny_model import write_lora
from tests.tiny_networks import all_kinds, asked

installed = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is an extra")
SETTINGS = {"prompt": "a cat on a mat", "num_steps": 3, "seed": 1}


@pytest.fixture(scope="module")
def converted(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu", engine="openvino")


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def ink(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterUse:
    path = write_lora(tiny_model, tmp_path_factory.mktemp("adapters") / "ink.safetensors")
    return AdapterUse(kind="lora", file=str(path))


def drawn(pipeline: Pipeline, **settings: object) -> np.ndarray:
    (picture,) = pipeline.txt2img(Txt2Img(**{**SETTINGS, **settings}))
    return np.asarray(picture.image).astype(int)


@installed
@all_kinds
def test_it_answers_what_the_network_does(network: Backbone, height: int, width: int) -> None:
    network = network.eval().requires_grad_(False)
    engine, given = OpenVINOUNet(network), asked(network, height=height, width=width)
    with torch.inference_mode():
        wanted, found = network(*given), engine(*given)
        assert found.shape == wanted.shape == (2, 4, height, width)
        assert (found - wanted).abs().max() < 1e-4 * wanted.std()
        assert torch.equal(engine(*given), found)
    (conversion,) = engine.preparations
    assert conversion.latents == given[0].shape


@installed
def test_in_bfloat16_it_is_as_near_as_torch_is(tiny_model: Path) -> None:
    exact = load_unet(tiny_model / "unet")
    half = load_unet(tiny_model / "unet", dtype=torch.bfloat16)
    latents, timesteps, states, *_ = asked(exact)
    given = latents.bfloat16(), timesteps, states.bfloat16()
    with torch.inference_mode():
        wanted = exact(latents, timesteps, states)
        ours, torchs = (one(*given).float() - wanted for one in (OpenVINOUNet(half), half))
    assert ours.std() < 1.5 * torchs.std()


@installed
def test_the_picture_is_the_same_and_a_shape_is_converted_once(
    converted: Pipeline, plain: Pipeline
) -> None:
    assert np.abs(drawn(converted) - drawn(plain)).max() <= 1
    before = len(converted.unet_engine.preparations)
    drawn(converted, seed=2)
    assert len(converted.unet_engine.preparations) == before
    record = converted.resolve(Txt2Img(prompt="a cat"))
    assert record.engine == "openvino"
    assert "openvino" in record.versions
    assert plain.resolve(Txt2Img(prompt="a cat")).engine == "torch"


@installed
def test_fused_loras_and_seamless_sides_are_heeded_and_are_gone_afterwards(
    converted: Pipeline, plain: Pipeline, ink: AdapterUse
) -> None:
    ours, torchs = replace(converted, fuse=True), replace(plain, fuse=True)
    before = drawn(ours, num_steps=1)
    for settings in ({"adapters": (ink,)}, {"seamless": "x"}):
        found = drawn(ours, num_steps=1, **settings)
        assert np.abs(found - drawn(torchs, num_steps=1, **settings)).max() <= 1
        assert not np.array_equal(found, before)
    assert np.array_equal(drawn(ours, num_steps=1), before)


@installed
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"reuse_features": 2}, "leave out --reuse-features"),
        ({"merge_tokens": 0.5}, "leave out --merge-tokens"),
        ({"guidance": GuidanceOptions(pag_scale=3.0)}, "leave out --pag"),
        ({"adapters": (AdapterUse(kind="hypernetwork", file="it.pt"),)}, "no hypernetworks"),
        ({"adapters": (AdapterUse(kind="lora", file="it"),)}, "in the weights alone: add --fuse"),
    ],
)
def test_what_stays_torchs_is_refused(
    converted: Pipeline, settings: dict[str, object], told: str
) -> None:
    with pytest.raises(PipelineError, match=told):
        converted.resolve(Txt2Img(prompt="a cat", **settings))


@installed
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"int8": True}, "leave out --int8"),
        ({"device": "meta"}, "is for CPUs, and the device is meta: give --device cpu"),
        ({"dtype": "fp16"}, "computes in fp32 and bf16, not in float16"),
        ({"attention": "chunked"}, "has its own attention, not 'chunked'"),
        ({"engine": "tensorrt"}, "engine is 'tensorrt'; it must be one of torch, "),
    ],
)
def test_what_it_cannot_be_opened_with_is_refused(
    tiny_model: Path, settings: dict[str, object], told: str
) -> None:
    with pytest.raises(PipelineError, match=told):
        load_pipeline(tiny_model, **{"device": "cpu", "engine": "openvino", **settings})


def test_without_it_one_line_says_what_to_install(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert run(["txt2img", "a cat", "--model", str(tiny_model), "--engine", "openvino"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "pip install 'sd-pipeline[openvino]'" in told


def test_its_telemetry_is_hidden_while_it_is_imported_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("openvino", "openvino_telemetry"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "openvino_telemetry.py").write_text("sent = True\n")
    (tmp_path / "openvino.py").write_text(
        "try:\n    import openvino_telemetry\nexcept ImportError:\n    quiet = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert load_openvino().quiet
        assert "openvino_telemetry" not in sys.modules
        assert find_spec("openvino_telemetry") is not None
    finally:
        sys.modules.pop("openvino", None)


@installed
def test_nothing_of_its_telemetry_is_there_after_a_conversion(
    tiny_model: Path, tmp_path: Path
) -> None:
    package = tmp_path / "openvino_telemetry"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('telemetry was imported')\n")
    code = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from sd_pipeline import OpenVINOUNet, load_unet\n"
        f"engine = OpenVINOUNet(load_unet(Path({str(tiny_model / 'unet')!r})))\n"
        "engine(torch.zeros(1, 4, 8, 8), torch.tensor([1.0]), torch.zeros(1, 12, 32))\n"
        "assert engine.preparations\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "assert telemetry_utils.tm.__name__ == 'openvino.tools.ovc.telemetry_stub'\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@installed
def test_the_command_says_how_long_it_took_and_replay_does_the_same(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "one.png"
    given = ["txt2img", "a cat", "--model", str(tiny_model), "--out", str(out), "--steps", "2"]
    assert run([*given, "--engine", "openvino", "--device", "cpu", "--seed", "3"]) == 0
    told = capsys.readouterr().err
    assert "the UNet is converted, which takes a while" in told
    assert "--engine openvino: making 1 size ready took " in told
    assert json.loads(Image.open(out).text["sd-record"])["engine"] == "openvino"
    assert run(["replay", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: identical\n"
