"""`sdcli models`, `models info` and `convert`, as a user meets them."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sd_pipeline import load_model, open_model
from sdcli.main import run

UNET = "unet/diffusion_pytorch_model.safetensors"


def sdcli(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def single_file(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "tiny.safetensors"
    assert sdcli(capsys, "convert", tiny_model, path)[0] == 0
    return path


def with_average(single_file: Path, tmp_path: Path) -> Path:
    """Add to a file the average of each weight of the UNet, under LDM's names: here its double."""
    tensors = load_file(single_file)
    with safe_open(single_file, "pt") as file:
        metadata = file.metadata()
    unet = {k: t for k, t in tensors.items() if k.startswith("model.diffusion_model.")}
    for key, tensor in unet.items():
        tensors["model_ema." + key.removeprefix("model.").replace(".", "")] = 2 * tensor
    path = tmp_path / "with-ema.safetensors"
    save_file(tensors, path, metadata)
    return path


def test_convert_goes_there_and_back_bit_for_bit(
    tiny_model: Path, single_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = sdcli(capsys, "convert", single_file, tmp_path / "folder")
    assert code == 0
    assert out.strip() == str(tmp_path / "folder")
    for file in (path for path in tiny_model.rglob("*") if path.is_file()):
        assert (
            tmp_path / "folder" / file.relative_to(tiny_model)
        ).read_bytes() == file.read_bytes()
    assert sdcli(capsys, "convert", tmp_path / "folder", tmp_path / "b.safetensors")[0] == 0
    assert (tmp_path / "b.safetensors").read_bytes() == single_file.read_bytes()


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_convert_stores_the_type_asked_for(
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    dtype: torch.dtype,
) -> None:
    assert sdcli(capsys, "convert", tiny_model, tmp_path / "new", "--dtype", name)[0] == 0
    before, after = load_file(tiny_model / UNET), load_file(tmp_path / "new" / UNET)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], before[key].to(dtype)) for key in before)


def test_an_average_can_be_dropped_used_or_kept(
    single_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = with_average(single_file, tmp_path)
    plain = load_file(single_file)
    conv_in = "model.diffusion_model.input_blocks.0.0.weight"
    for choice, factor in (("drop", 1), ("use", 2), ("keep", 1)):
        target = tmp_path / f"{choice}.safetensors"
        assert sdcli(capsys, "convert", source, target, "--ema", choice)[0] == 0
        tensors = load_file(target)
        assert torch.equal(tensors[conv_in], factor * plain[conv_in])
        averages = [key for key in tensors if key.startswith("model_ema.")]
        assert bool(averages) == (choice == "keep")
    folder = tmp_path / "folder"
    assert sdcli(capsys, "convert", source, folder, "--ema", "keep")[0] == 0
    averaged, learnt = (
        load_file(folder / "unet" / f"diffusion_pytorch_model{variant}.safetensors")
        for variant in ("", ".non_ema")
    )
    assert torch.equal(averaged["conv_in.weight"], 2 * learnt["conv_in.weight"])
    back = tmp_path / "back.safetensors"
    assert sdcli(capsys, "convert", folder, back, "--ema", "keep")[0] == 0
    assert back.read_bytes() == (tmp_path / "keep.safetensors").read_bytes()


def test_convert_overwrites_only_when_told(
    tiny_model: Path, single_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = single_file.read_bytes()
    code, _, err = sdcli(capsys, "convert", tiny_model, single_file, "--dtype", "fp16")
    assert code == 2
    assert "exists; name another place or add --overwrite" in err
    assert single_file.read_bytes() == before
    code, *_ = sdcli(capsys, "convert", tiny_model, single_file, "--dtype", "fp16", "--overwrite")
    assert code == 0
    assert len(single_file.read_bytes()) < len(before)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ema", "keep"], "has no EMA weights to keep"),
        (["--ema", "some"], "--ema is 'some'; it must be drop, use, keep"),
        (["--dtype", "int8"], "--dtype is 'int8'; it must be keep, fp32, fp16, bf16"),
        (["--prediction", "w"], "unknown prediction 'w'"),
        (["--variant", "fp16"], "fp16"),
    ],
)
def test_convert_explains_what_it_cannot_do_and_writes_nothing(
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    code, _, err = sdcli(capsys, "convert", tiny_model, tmp_path / "new", *arguments)
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_info_tells_family_layout_prediction_and_parts(
    tiny_model: Path, single_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = {
        name: sum(t.numel() for t in getattr(load_model(tiny_model), name).state_dict().values())
        for name in ("unet", "vae")
    }
    for path, layout in ((tiny_model, "diffusers folder"), (single_file, "single file")):
        code, out, _ = sdcli(capsys, "models", "info", path)
        assert code == 0
        assert layout in out
        assert "Stable Diffusion 1.x, for txt2img" in out
        assert "prediction  v" in out
        assert "missing     nothing" in out
        for name, number in numbers.items():
            assert f"{name}: {number / 1e6:,.2f} M parameters, float32" in out


def test_info_names_what_is_missing(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / UNET).unlink()
    shutil.rmtree(folder / "tokenizer")
    tensors = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    code, out, _ = sdcli(capsys, "models", "info", folder)
    assert code == 0
    missing = [line for line in out.splitlines() if line.startswith("missing")]
    assert len(missing) == 2
    assert any("unet has no diffusion_pytorch_model.safetensors" in line for line in missing)
    assert any("tokenizer does not exist" in line for line in missing)
    folder = shutil.copytree(tiny_model, tmp_path / "other")
    tensors.pop("decoder.conv_in.bias")
    save_file(tensors, folder / "vae" / "diffusion_pytorch_model.safetensors")
    out = sdcli(capsys, "models", "info", folder)[1]
    assert "lacks 1 tensors: decoder.conv_in.bias" in out


def test_models_lists_local_ones_with_family_dtype_size_and_hash(
    tiny_model: Path,
    single_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = single_file.parent
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setenv("COLUMNS", "400")
    shutil.copytree(tiny_model, folder / "a-folder")
    (folder / "broken.safetensors").write_bytes(b"nothing")
    for _ in range(2):  # the second time from the kept hashes
        code, out, err = sdcli(capsys, "models", "--local", folder)
        assert code == 0
        lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
        of_file = lines[str(single_file)]
        assert "Stable Diffusion 1.x" in of_file
        assert "float32" in of_file
        assert hashlib.sha256(single_file.read_bytes()).hexdigest()[:10] in of_file
        unet = hashlib.sha256((tiny_model / UNET).read_bytes()).hexdigest()[:10]
        assert unet in lines[str(folder / "a-folder")]
        assert "not readable" in lines[str(folder / "broken.safetensors")]
        assert "broken.safetensors" in err
    kept = json.loads((folder / "cache" / "sdcli" / "hashes.json").read_text())
    assert len(kept) == 3


def test_txt2img_takes_a_file_and_what_it_says_can_be_overridden(
    single_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw(name: str, *flags: str) -> bytes:
        out = tmp_path / f"{name}.png"
        arguments = ["txt2img", "a cat", "--model", single_file, "--steps", 2, "--seed", 1]
        assert sdcli(capsys, *arguments, "--sampler", "ddim", "--out", out, *flags)[0] == 0
        from PIL import Image

        return Image.open(out).tobytes()

    plain = draw("plain")
    assert draw("same", "--prediction", "v") == plain
    coarse = ["--betas", "linear:0.02:0.03"]  # so that the last step matters to the eye
    drawn = [plain, draw("coarse", *coarse), draw("first", *coarse, "--final-alpha", "first")]
    for number, flags in enumerate((["--prediction", "eps"], ["--zero-snr"])):
        drawn.append(draw(f"flag-{number}", *flags))
    drawn.append(draw("offset", "--steps-offset", "300"))
    assert [drawn.index(picture) for picture in drawn] == list(range(len(drawn)))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--prediction", "w"], "unknown prediction 'w'"),
        (["--betas", "linear:0.1:0.2"], "choose smaller betas"),
        (["--betas", "linear:0.5"], "it must be NAME or NAME:START:END"),
        (["--betas", "round"], "unknown noise schedule 'round'"),
        (["--final-alpha", "two"], "it must be one or first"),
        (["--steps-offset", "-1"], "it must be from 0 to 999"),
        (["--ema"], "has no EMA weights"),
        (["--variant", "fp16"], "has no variants"),
    ],
)
def test_a_process_that_cannot_be_is_refused_in_one_line(
    single_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    words: str,
) -> None:
    out = tmp_path / "a.png"
    code, _, err = sdcli(capsys, "txt2img", "a cat", "--model", single_file, "--out", out, *flags)
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert not out.exists()


def test_a_single_file_of_the_embedded_kind_carries_its_own_words(single_file: Path) -> None:
    report = load_model(single_file).text_encoder.check("a zebra")
    assert report.unknown == ("zebra",)
    assert open_model(single_file).texts[0].tokenizer.closed
