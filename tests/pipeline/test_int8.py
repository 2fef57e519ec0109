"""A UNet whose weights are held as int8: near the exact one, told, repeatable, adapted."""

import json
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sd_adapters import AdapterError
from sd_checkpoint import CheckpointError, skeleton
from sd_ops import hold_as_int8, int8_values
from sd_pipeline import (
    AdapterUse,
    Part,
    Pipeline,
    PipelineError,
    Txt2Img,
    load_pipeline,
    load_unet,
    save_model,
)
from sd_pipeline.folder import open_unet
from sd_pipeline.parts import build_unet
from sd_unet import UNet, sd15
from sdcli.main import run
from tests.tiny_model import write_lora

SETTINGS = {"prompt": "a cat on a mat", "num_steps": 3, "seed": 1}


@pytest.fixture(scope="module")
def held(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu", int8=True)


def drawn(pipeline: Pipeline, **settings: object) -> np.ndarray:
    (picture,) = pipeline.txt2img(Txt2Img(**{**SETTINGS, **settings}))
    return np.asarray(picture.image).astype(int)


def predicted(unet: UNet) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((2, 4, 8, 8), generator=generator)
    states = torch.randn((2, 12, 32), generator=generator)
    with torch.inference_mode():
        return unet(latents, torch.tensor([700, 20]), states)


def test_a_unets_answer_is_near_and_no_two_differ(tiny_model: Path) -> None:
    exact = predicted(load_unet(tiny_model / "unet"))
    first, second = (
        predicted(build_unet(open_unet(tiny_model / "unet"), int8=True)) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert 0 < (first - exact).std() / exact.std() < 0.05


def test_it_is_quantised_from_the_file_as_a_network_in_memory_is(tiny_model: Path) -> None:
    from_file = build_unet(open_unet(tiny_model / "unet"), int8=True)
    at_once = load_unet(tiny_model / "unet")
    hold_as_int8(at_once)
    wanted = at_once.state_dict()
    found = from_file.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in wanted.items())


def test_half_precision_is_computed_in_and_scales_stay_as_they_are(tiny_model: Path) -> None:
    unet = build_unet(open_unet(tiny_model / "unet"), dtype=torch.bfloat16, int8=True)
    assert unet.conv_in.weight.dtype == unet.conv_norm_out.weight.dtype == torch.bfloat16
    types = {tensor.dtype for tensor in unet.state_dict().values()}
    assert types == {torch.int8, torch.float32, torch.bfloat16}


def test_stable_diffusions_unet_takes_a_quarter_of_fp32() -> None:
    with skeleton():
        unet = UNet(sd15())
    before = sum(tensor.nbytes for tensor in unet.state_dict().values())
    hold_as_int8(unet)
    after = sum(tensor.nbytes for tensor in unet.state_dict().values())
    assert 0.249 < after / before < 0.255


def test_no_two_weights_are_there_whole_while_it_is_read(tiny_model: Path) -> None:
    part = open_unet(tiny_model / "unet")
    living: list[int] = []
    there: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()

    class Watched(dict[str, None]):
        def __getitem__(self, key: str) -> torch.Tensor:  # type: ignore[override]
            tensor = part.tensors[key].clone()
            if tensor.ndim > 1:
                there.add(tensor)
                living.append(len(there))
            return tensor

    tensors = Watched.fromkeys(part.tensors)
    unet = build_unet(Part(config=part.config, tensors=tensors, what="it"), int8=True)
    assert int8_values(unet.conv_in) is not None
    assert max(living) == 1


def test_a_file_that_does_not_fit_is_told_in_its_own_names(tiny_model: Path) -> None:
    part = open_unet(tiny_model / "unet")
    tensors = {key: part.tensors[key] for key in part.tensors if key != "conv_in.weight"}
    with pytest.raises(CheckpointError, match=r"1 missing \(conv_in\.weight\)"):
        build_unet(replace(part, tensors=tensors), int8=True)


def test_the_picture_differs_is_told_and_comes_again(held: Pipeline, tiny_model: Path) -> None:
    exact = load_pipeline(tiny_model, device="cpu")
    near = drawn(held)
    assert not np.array_equal(near, drawn(exact))
    assert np.array_equal(near, drawn(held))
    assert np.abs(near - drawn(exact)).mean() < 8
    assert held.resolve(Txt2Img(prompt="a cat")).int8
    assert not exact.resolve(Txt2Img(prompt="a cat")).int8


@pytest.fixture(scope="module")
def ink(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tiny_model, tmp_path_factory.mktemp("adapters") / "ink.safetensors")


def test_a_lora_rides_on_top_and_is_gone_afterwards(held: Pipeline, ink: Path) -> None:
    before = drawn(held)
    use = AdapterUse(kind="lora", file=str(ink))
    assert not np.array_equal(drawn(held, adapters=(use,)), before)
    assert np.array_equal(drawn(held), before)


def test_nothing_is_fused_into_eight_bits(held: Pipeline, ink: Path) -> None:
    with pytest.raises(PipelineError, match="cannot be written into weights that are held as int8"):
        replace(held, fuse=True)
    use = AdapterUse(kind="lora", file=str(ink))
    attached = held.shelf.attached(held.parts, [use], fuse=True)
    with pytest.raises(AdapterError, match="leave the LoRA injected"), attached:
        pass
    assert not held.parts.unet.conv_in._forward_hooks


def test_it_is_not_written_as_a_model(held: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="is for drawing and cannot be written"):
        save_model(tmp_path / "model", held.parts)
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_trades_and_replay_does_the_same(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "one.png"
    given = ["txt2img", "a cat", "--model", str(tiny_model), "--out", str(out), "--steps", "2"]
    assert run([*given, "--int8", "--seed", "3"]) == 0
    assert "--int8: the UNet's weights are rounded to eight bits" in capsys.readouterr().err
    assert json.loads(Image.open(out).text["sd-record"])["int8"] is True
    assert run(["replay", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: identical\n"
    assert run([*given, "--int8", "--fuse"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "leave out --fuse" in told
