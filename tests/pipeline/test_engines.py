"""The UNet compiled, and recorded: the network's numbers, and nothing of an earlier state."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

from sd_pipeline import (
    AdapterUse,
    CompiledUNet,
    GraphedUNet,
    Pipeline,
    PipelineError,
    Step,
    Txt2Img,
    load_pipeline,
    load_unet,
)
from sd_sampler import GuidanceOptions
from sd_unet import Backbone
from sdcli.main import run
from tests.devices import META, Copies
from tests.tiny_model import write_lora
from tests.tiny_networks import all_kinds, asked

T = TypeVar("T")

on_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SETTINGS = {"prompt": "a cat on a mat", "num_steps": 2, "seed": 1}


def drawn(pipeline: Pipeline, **settings: object) -> np.ndarray:
    (picture,) = pipeline.txt2img(Txt2Img(**{**SETTINGS, **settings}))
    return np.asarray(picture.image).astype(int)


class Records:
    """Does again what it was given, into the very same tensors, as a CUDA graph does.

    Nor does it do anything while it records.
    """

    def __init__(self) -> None:
        self.replays: list[int] = []

    def __call__(self, work: Callable[[], T], /) -> tuple[Callable[[], None], T]:
        number, result = len(self.replays), work()
        self.replays.append(0)
        for place in tensors(result):
            place.fill_(float("nan"))

        def replay() -> None:
            self.replays[number] += 1
            for place, value in zip(tensors(result), tensors(work()), strict=True):
                place.copy_(value)

        return replay, result


def tensors(result: object) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    else:
        for part in result:
            yield from tensors(part)


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def ink(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterUse:
    path = write_lora(tiny_model, tmp_path_factory.mktemp("adapters") / "ink.safetensors")
    return AdapterUse(kind="lora", file=str(path))


@pytest.fixture
def compiled(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    # Code generation takes seconds a block; tracing is what may go wrong here.
    monkeypatch.setattr("sd_ops.compiling._BACKEND", "eager")
    torch._dynamo.reset()
    return load_pipeline(tiny_model, device="cpu", engine="compiled")


@all_kinds
def test_a_recorded_network_answers_what_it_does_whatever_it_is_told_next(
    network: Backbone, height: int, width: int
) -> None:
    network = network.eval().requires_grad_(False)
    first = asked(network, height=height, width=width)
    latents, timesteps, states, added, labels = first
    second = (
        latents.roll(1, dims=2),
        timesteps / 2,
        None if states is None else states.flip(0),
        added and type(added)(*(0.5 * one for one in added)),
        None if labels is None else labels.flip(0),
    )
    third = (*second[:2], states, *second[3:])
    records = Records()
    engine = GraphedUNet(network, record=records)
    with torch.inference_mode(), engine.run():
        for given in (first, second, third, third, first):
            found, wanted = engine(*given), network(*given)
            assert torch.equal(found, wanted)
            assert not torch.equal(engine(*second), engine(*first))
            assert torch.equal(found, wanted)  # the steps after it are written elsewhere
    assert [one.latents for one in engine.preparations] == [first[0].shape]


def test_texts_are_projected_anew_only_where_they_are_others(tiny_model: Path) -> None:
    network, records = load_unet(tiny_model / "unet"), Records()
    engine = GraphedUNet(network, record=records)
    latents, timesteps, states, *_ = asked(network)
    with torch.inference_mode(), engine.run():
        for told in (states, states, states, states.clone(), states):
            engine(latents, timesteps, told)
    assert records.replays == [3, 5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_halves_are_laid_out_as_cards_multiply_them(tiny_model: Path, dtype: torch.dtype) -> None:
    network = load_unet(tiny_model / "unet", dtype=dtype)
    given = [one if one is None else one.to(dtype) for one in asked(network)]
    with torch.inference_mode():
        wanted = network(*given)
        engine = GraphedUNet(network, record=Records())
        with engine.run():
            found = engine(*given)
    last = network.mid_block.resnets[0].conv1.weight.is_contiguous(
        memory_format=torch.channels_last
    )
    assert last == (dtype != torch.float32)
    assert (found - wanted).std() < 4 * torch.finfo(dtype).eps * wanted.std()


def test_two_shapes_are_kept_and_nothing_of_weights_that_were_written_to(tiny_model: Path) -> None:
    network = load_unet(tiny_model / "unet")
    engine = GraphedUNet(network, record=Records())
    sizes = [(8, 8), (8, 12), (8, 8), (12, 12), (8, 8), (8, 12)]
    with torch.inference_mode():
        with engine.run():
            for height, width in sizes:
                engine(*asked(network, height=height, width=width))
        shapes = [one.latents[2:] for one in engine.preparations]
        assert shapes == [(8, 8), (8, 12), (12, 12), (8, 12)]
        with engine.run():
            engine(*asked(network))
        assert len(engine.preparations) == 4
    with torch.no_grad():
        network.conv_in.weight.mul_(2)
    with torch.inference_mode():
        with engine.run():
            assert torch.equal(engine(*asked(network)), network(*asked(network)))
        assert len(engine.preparations) == 5


def test_pictures_of_a_recorded_network_are_the_same_with_all_that_hooks_do(
    plain: Pipeline, ink: AdapterUse
) -> None:
    engine = GraphedUNet(plain.parts.unet, record=Records())
    recorded = replace(plain, unet_engine=engine)
    before = drawn(recorded)
    for settings in ({}, {"adapters": (ink,)}, {"seamless": "x"}, {"guidance_scale": 1.0}):
        found = drawn(recorded, **settings)
        assert np.array_equal(found, drawn(plain, **settings))
        assert settings == {} or not np.array_equal(found, before)
    assert np.array_equal(drawn(recorded), before)
    record = recorded.resolve(Txt2Img(prompt="a cat"))
    assert record.engine == "graphs"


def test_pictures_of_compiled_blocks_are_the_same_with_all_that_hooks_do(
    compiled: Pipeline, plain: Pipeline, ink: AdapterUse
) -> None:
    before = drawn(compiled)
    assert len(compiled.unet_engine.preparations) == 1
    for settings in ({"seed": 2}, {"adapters": (ink,)}, {"seamless": "x"}):
        found = drawn(compiled, **settings)
        assert np.abs(found - drawn(plain, **settings)).max() <= 1
        assert not np.array_equal(found, before)
    assert np.array_equal(drawn(compiled), before)
    assert len(compiled.unet_engine.preparations) == 3
    assert compiled.resolve(Txt2Img(prompt="a cat")).engine == "compiled"


@pytest.mark.parametrize(("sampler", "copies"), [("dpmpp_2m", 0), ("euler_a", 1)])
def test_a_run_does_not_wait_for_its_device_but_for_noise(
    tiny_model: Path, sampler: str, copies: int
) -> None:
    pipeline = load_pipeline(tiny_model, device="meta", dtype="fp32")
    request = Txt2Img(prompt="a cat", negative_prompt="a dog", num_steps=4, sampler=sampler)
    seen: list[int] = []
    with Copies() as made:

        def note(_: Step) -> None:
            seen.append(len(made.names))
            made.names.clear()

        denoising = pipeline._denoising
        latents = denoising(pipeline.resolve(request), [1, 2], None, note)
    assert latents.device == META
    assert seen[1:] == [copies, copies, 0]


@pytest.mark.slow
def test_code_that_was_generated_draws_the_same(tiny_model: Path, plain: Pipeline) -> None:
    torch._dynamo.reset()
    ours = load_pipeline(tiny_model, device="cpu", engine="compiled")
    assert np.abs(drawn(ours) - drawn(plain)).max() <= 1


@pytest.mark.slow
def test_in_bfloat16_generated_code_is_as_near_as_torch_is(tiny_model: Path) -> None:
    torch._dynamo.reset()
    exact = load_unet(tiny_model / "unet")
    half = load_unet(tiny_model / "unet", dtype=torch.bfloat16)
    given = asked(exact)
    halves = [one if one is None else one.to(torch.bfloat16) for one in given]
    with torch.inference_mode():
        wanted, torchs = exact(*given), half(*halves)
        engine = CompiledUNet(half)
        with engine.run():
            ours = engine(*halves)
    assert (ours - wanted).std() < 1.2 * (torchs - wanted).std()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"reuse_features": 2}, "leave out --reuse-features"),
        ({"merge_tokens": 0.5}, "leave out --merge-tokens"),
        ({"guidance": GuidanceOptions(pag_scale=3.0)}, "leave out --pag"),
    ],
)
def test_steps_that_are_not_alike_are_refused(
    compiled: Pipeline, settings: dict[str, object], told: str
) -> None:
    with pytest.raises(PipelineError, match=f"the engine compiled .*{told}, or leave --engine"):
        compiled.resolve(Txt2Img(prompt="a cat", **settings))


def test_what_cannot_be_had_is_refused(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PipelineError, match="graphs is for CUDA, and the device is cpu"):
        load_pipeline(tiny_model, device="cpu", engine="graphs")
    monkeypatch.setattr("shutil.which", lambda _: None)
    given = ["txt2img", "a cat", "--model", str(tiny_model), "--device", "cpu"]
    assert run([*given, "--engine", "compiled"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "needs a C++ compiler: install one, such as g++, or leave --engine at torch" in told


def test_a_torch_that_is_too_old_is_named(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.__version__", "2.6.1")
    with pytest.raises(PipelineError, match=r"needs torch 2\.7, and this is 2\.6\.1: update torch"):
        load_pipeline(tiny_model, device="cpu", engine="compiled")


def test_the_command_says_what_it_does_and_how_long_it_took(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sd_ops.compiling._BACKEND", "eager")
    torch._dynamo.reset()
    out = tmp_path / "one.png"
    given = ["txt2img", "a cat", "--model", str(tiny_model), "--out", str(out), "--steps", "2"]
    assert run([*given, "--engine", "compiled", "--device", "cpu", "--seed", "3"]) == 0
    told = capsys.readouterr().err
    assert "the UNet is compiled, which takes a minute or two, at the first step" in told
    assert "--engine compiled: making 1 size ready took " in told


@pytest.mark.gpu
@on_card
@pytest.mark.parametrize("engine", ["graphs", "compiled"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_on_a_card_pictures_are_the_same(
    tiny_model: Path, ink: AdapterUse, engine: str, dtype: str
) -> None:
    torch._dynamo.reset()
    ours, plain = (
        load_pipeline(tiny_model, device="cuda", dtype=dtype, engine=name)
        for name in (engine, "torch")
    )
    for settings in ({}, {"seed": 2}, {"adapters": (ink,)}, {"prompt": "a dog"}, {}):
        found, wanted = drawn(ours, **settings), drawn(plain, **settings)
        assert np.abs(found - wanted).max() <= (1 if dtype == "fp32" else 4)
