"""`sdcli lora`: info, convert, merge, extract and resize, as a user meets them."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sd_pipeline import Parts, save_model
from sd_textenc import DualTextEncoder, train_tokenizer
from sd_unet import UNet, UNetConfig
from sdcli.main import run
from tests.textenc.towers import clip_config, open_clip_config, tower
from tests.tiny_model import CAPTIONS, tiny_parts

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT, TEXT_2 = "text_encoder/model.safetensors", "text_encoder_2/model.safetensors"
ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
RESNET = "down_blocks.0.resnets.0.conv1"
LAYER = "text_model.encoder.layers.0.self_attn.q_proj"
# kohya's name of each, the shape of its weight, and where that is in a model's folder
PLACES = {
    f"lora_unet_{ATTENTION.replace('.', '_')}": ((64, 64), UNET, f"{ATTENTION}.weight"),
    f"lora_unet_{RESNET.replace('.', '_')}": ((32, 32, 3, 3), UNET, f"{RESNET}.weight"),
    f"lora_te_{LAYER.replace('.', '_')}": ((32, 32), TEXT, f"{LAYER}.weight"),
}
LINEAR = next(iter(PLACES))
TO_DIFFUSERS = ("--layout", "diffusers", "--model", "model")
HEADER = {
    "ss_sd_model_name": "tiny.safetensors",
    "ss_training_comment": "by hand",
    "ss_network_dim": "4",
    "ss_network_args": '{"conv_dim": 4}',
    "ss_tag_frequency": json.dumps({"cats": 300 * "x"}),
    "sshs_model_hash": "0" * 64,
}


def sdcli(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """Run a command of `sdcli lora` that must do, and return what it says as JSON."""
    code, out, err = sdcli(capsys, "lora", *arguments, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert isinstance(document, dict)
    return document


def write(
    path: Path,
    seed: int,
    *,
    rank: int = 4,
    alpha: float = 4.0,
    dtype: torch.dtype = torch.float32,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a LoRA of kohya's layout for the tiny model."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, ((out, *into), *_) in PLACES.items():
        ones = [1] * (len(into) - 1)
        for part, shape in (("down", (rank, *into)), ("up", (out, rank, *ones))):
            numbers = torch.randn(shape, generator=generator) / 3
            tensors[f"{name}.lora_{part}.weight"] = numbers.to(dtype)
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path, dict(HEADER if metadata is None else metadata))
    return path


def additions(path: Path) -> dict[str, Tensor]:
    """Restate what each layer of a file of kohya's layout adds to its weight."""
    tensors, found = load_file(path), {}
    for name in {key.partition(".")[0] for key in tensors}:
        up, down = (tensors[f"{name}.lora_{part}.weight"].float() for part in ("up", "down"))
        scale = tensors[f"{name}.alpha"] / len(down)
        found[name] = (up.flatten(1) @ down.flatten(1) * scale).reshape(len(up), *down.shape[1:])
    return found


def header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def changed(folder: Path, copy: Path, changes: Mapping[str, Mapping[str, Tensor]]) -> Path:
    """Copy a model's folder with something added to some of its tensors."""
    shutil.copytree(folder, copy)
    for file, added in changes.items():
        tensors = load_file(copy / file)
        for key, tensor in added.items():
            tensors[key] = tensors[key] + tensor
        save_file(tensors, copy / file, {"format": "pt"})
    return copy


@pytest.fixture(scope="module")
def sdxl_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = train_tokenizer(CAPTIONS, context_length=12)
    tiny = tiny_parts()
    unet = UNetConfig(
        sample_size=8,
        block_out_channels=(32, 64),
        attention_levels=(False, True),
        layers_per_block=1,
        cross_attention_dim=64,
        num_heads=4,
        addition_time_embed_dim=8,
        projection_input_dim=32 + 6 * 8,
    )
    second = tower(open_clip_config(words, projection_dim=32), words)
    text = DualTextEncoder(tower(clip_config(words), words), second)
    folder = tmp_path_factory.mktemp("models") / "sdxl"
    parts = Parts(unet=UNet(unet), vae=tiny.vae, text_encoder=text, scheduler=tiny.scheduler)
    save_model(folder, parts, dtype=torch.float32)
    return folder


def test_info_tells_parts_kinds_ranks_alphas_and_the_header(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.safetensors", 1, alpha=2.0, dtype=torch.float16)
    code, out, _ = sdcli(capsys, "lora", "info", file)
    assert code == 0
    lines = out.splitlines()
    assert "layers      UNet 2, text encoder 1" in lines
    assert "kinds       lora 3" in lines
    assert "ranks       4 (3)" in lines
    assert "alphas      2 (3)" in lines
    assert "base model  tiny.safetensors" in lines
    assert "comment     by hand" in lines
    assert any("ss_tag_frequency" in line and "more characters" in line for line in lines)
    said = told(capsys, "info", file)
    assert said["parts"] == {"lora_unet": 2, "lora_te": 1}
    assert said["ranks"] == {"4": 3}
    assert said["dtypes"] == ["float16", "float32"]
    assert HEADER.items() <= dict(said["metadata"]).items()


def test_info_shows_nothing_that_steers_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comment = {"ss_training_comment": "red \x1b[31m\nnext line"}
    file = write(tmp_path / "a.safetensors", 1, metadata=comment)
    out = sdcli(capsys, "lora", "info", file)[1]
    assert "\x1b" not in out
    assert r"comment     red \x1b[31m\nnext line" in out.splitlines()


def test_convert_goes_there_and_back_bit_for_bit(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.safetensors", 1, dtype=torch.float16)
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    told(capsys, "convert", file, there, "--layout", "diffusers", "--model", tiny_model)
    found = load_file(there)
    assert {key.partition(".lora_")[0] for key in found} == {
        f"unet.{ATTENTION}",
        f"unet.{RESNET}",
        f"text_encoder.{LAYER}",
    }
    told(capsys, "convert", there, back, "--layout", "kohya")
    before, after = load_file(file), load_file(back)
    assert before.keys() == after.keys()
    assert all(before[key].dtype == after[key].dtype for key in before)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_convert_counts_an_alpha_once_wherever_it_stands(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    down, up = torch.randn(4, 64), torch.randn(64, 4)
    tensors = {f"unet.{ATTENTION}.lora_A.weight": down, f"unet.{ATTENTION}.lora_B.weight": up}
    peft = tmp_path / "peft.safetensors"
    save_file(tensors, peft, {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 8})})
    kohya, again = tmp_path / "kohya.safetensors", tmp_path / "again.safetensors"
    told(capsys, "convert", peft, kohya, "--layout", "kohya")
    assert load_file(kohya)[f"{LINEAR}.alpha"] == 8
    assert header(kohya)["ss_network_alpha"] == "8"
    told(capsys, "convert", kohya, again, "--layout", "diffusers", "--model", tiny_model)
    assert "lora_adapter_metadata" not in header(again)
    assert torch.equal(load_file(again)[f"unet.{ATTENTION}.lora_B.weight"], 2 * up)


def test_convert_keeps_the_header_and_says_what_was_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = write(tmp_path / "a.safetensors", 1), tmp_path / "b.safetensors"
    told(capsys, "convert", file, out, "--layout", "kohya", "--dtype", "bf16")
    said = header(out)
    assert said["ss_training_comment"] == "converted from kohya's layout to kohya's; by hand"
    assert "sshs_model_hash" not in said
    kept = ("ss_sd_model_name", "ss_tag_frequency", "ss_network_args")
    assert all(said[key] == HEADER[key] for key in kept)
    tensors = load_file(out)
    assert tensors[f"{LINEAR}.lora_up.weight"].dtype == torch.bfloat16
    assert tensors[f"{LINEAR}.alpha"].dtype == torch.float32


def test_kinds_without_a_rank_are_told_and_written_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    tensors = {f"{LINEAR}.diff": torch.ones(64, 64), "lora_te_b.lokr_w1": torch.ones(2, 2)}
    save_file({**tensors, "lora_te_b.lokr_w2": torch.ones(2, 2)}, file)
    assert told(capsys, "info", file)["kinds"] == {"full": 1, "lokr": 1}
    code, text, _ = sdcli(capsys, "lora", "convert", file, out, "--layout", "kohya")
    assert code == 0
    assert text.strip() == f"{out}: 2 layers"
    assert all(torch.equal(load_file(out)[key], tensor) for key, tensor in tensors.items())
    assert header(out)["ss_network_module"] == "lycoris.kohya"


def test_merged_lora_adds_what_all_add(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write(tmp_path / "a.safetensors", 1, rank=2, alpha=1.0)
    second = write(tmp_path / "b.safetensors", 2, rank=3, metadata={"ss_sd_model_name": "other"})
    out = tmp_path / "out.safetensors"
    said = told(capsys, "merge", f"{first}:0.5", f"{second}:-2", "--out", out)
    assert said["ranks"] == {"5": 3}
    one, two, both = additions(first), additions(second), additions(out)
    for name in PLACES:
        assert torch.allclose(both[name], 0.5 * one[name] - 2 * two[name], atol=1e-5)
    assert "ss_sd_model_name" not in header(out)  # they disagree
    assert header(out)["ss_training_comment"] == "merged of a.safetensors:0.5 + b.safetensors:-2"
    told(capsys, "merge", first, first, "--out", out, "--rank", 2, "--overwrite")
    for name, addition in additions(out).items():  # twice the same has no more rank than once
        assert torch.allclose(addition, 2 * one[name], atol=1e-5)


@pytest.mark.parametrize("target", ["folder", "file.safetensors"])
def test_merging_into_a_model_adds_to_its_weights_and_to_nothing_else(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    first = write(tmp_path / "a.safetensors", 1, alpha=2.0)
    second = write(tmp_path / "b.safetensors", 2)
    new, folder = tmp_path / target, tmp_path / "folder"
    said = told(capsys, "merge", f"{first}:0.5", second, "--into", tiny_model, "--out", new)
    assert said["family"] == "Stable Diffusion 1.x"
    if new != folder:
        assert sdcli(capsys, "convert", new, folder)[0] == 0
    one, two = additions(first), additions(second)
    places = {(file, key): name for name, (_, file, key) in PLACES.items()}
    for file in (UNET, TEXT, "vae/diffusion_pytorch_model.safetensors"):
        before, after = load_file(tiny_model / file), load_file(folder / file)
        assert before.keys() == after.keys()
        for key, tensor in before.items():
            name = places.get((file, key))
            if name is None:
                assert torch.equal(after[key], tensor)
            else:
                expected = tensor + 0.5 * one[name] + two[name]
                assert torch.allclose(after[key], expected, atol=1e-5)
                assert not torch.allclose(after[key], tensor, atol=1e-2)


def test_extract_gives_back_a_change_of_known_rank(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = additions(write(tmp_path / "known.safetensors", 3, rank=2))
    changes: dict[str, dict[str, Tensor]] = {UNET: {"conv_norm_out.weight": torch.tensor(1.0)}}
    for name, (_, file, key) in PLACES.items():
        changes.setdefault(file, {})[key] = wanted[name]
    tuned = changed(tiny_model, tmp_path / "tuned", changes)
    out = tmp_path / "out.safetensors"
    code, text, _ = sdcli(capsys, "lora", "extract", tiny_model, tuned, "--out", out, "--rank", 2)
    assert code == 0
    assert "UNet: 100.00% kept of 2 layers" in text
    assert "text encoder: 100.00% kept of 1 layers" in text
    assert "not held: 1 norms, biases or embeddings changed, too: unet.conv_norm_out" in text
    found = additions(out)
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[name], wanted[name], atol=1e-4) for name in wanted)
    flags = ["--out", out, "--overwrite", "--parts", "text", "--energy", 0.5]
    said = told(capsys, "extract", tiny_model, tuned, *flags)
    assert additions(out).keys() == {name for name in wanted if name.startswith("lora_te")}
    assert said["left_out"] == []


def test_resize_keeps_the_greatest_singular_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = write(tmp_path / "a.safetensors", 1), tmp_path / "out.safetensors"
    said = told(capsys, "resize", file, "--out", out, "--rank", 1)
    shares, energies = said["energies"], []
    assert isinstance(shares, dict)
    for name, addition in additions(file).items():
        squares = torch.linalg.svdvals(addition.flatten(1)).square()
        assert shares[name] == pytest.approx(float(squares[0] / squares.sum()), abs=1e-4)
        if name.startswith("lora_unet"):
            energies.append((float(squares[0]), float(squares.sum())))
    kept, whole = (sum(values) for values in zip(*energies, strict=True))
    assert said["kept"]["UNet"]["share"] == pytest.approx(kept / whole, abs=1e-4)
    assert header(out)["ss_training_comment"] == "resized to rank 1; by hand"
    assert header(out)["ss_network_dim"] == "1"
    assert "ss_network_args" not in header(out)  # it says the convolutions' old rank
    told(capsys, "resize", file, "--out", out, "--energy", 1, "--overwrite", "--dtype", "fp16")
    assert {tensor.dtype for tensor in load_file(out).values()} == {torch.float16, torch.float32}
    before, after = additions(file), additions(out)
    assert all(torch.allclose(after[name], before[name], atol=1e-2) for name in before)


def test_sdxl_has_the_names_of_kohyas_files_in_both_towers_and_back(
    sdxl_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    changes = {
        UNET: {f"{ATTENTION}.weight": torch.outer(torch.randn(64), torch.randn(64))},
        TEXT: {f"{LAYER}.weight": torch.outer(torch.randn(32), torch.randn(32))},
        TEXT_2: {f"{LAYER}.weight": torch.outer(torch.randn(32), torch.randn(32))},
    }
    tuned = changed(sdxl_model, tmp_path / "tuned", changes)
    lora, peft, back = (tmp_path / f"{name}.safetensors" for name in ("lora", "peft", "back"))
    told(capsys, "extract", sdxl_model, tuned, "--out", lora, "--rank", 1)
    assert additions(lora).keys() == {
        "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q",
        f"lora_te1_{LAYER.replace('.', '_')}",
        f"lora_te2_{LAYER.replace('.', '_')}",
    }
    told(capsys, "convert", lora, peft, "--layout", "diffusers", "--model", sdxl_model)
    assert f"text_encoder_2.{LAYER}.lora_A.weight" in load_file(peft)
    told(capsys, "convert", peft, back, "--layout", "kohya", "--model", sdxl_model)
    before, after = load_file(lora), load_file(back)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    told(capsys, "convert", peft, back, "--layout", "kohya", "--overwrite")
    code, _, err = sdcli(capsys, "lora", "merge", lora, back, "--out", tmp_path / "m.safetensors")
    assert code == 2
    assert "calls its layers otherwise" in err
    told(capsys, "merge", peft, "--into", sdxl_model, "--out", tmp_path / "fused")
    for file, added in changes.items():
        fused, wanted = load_file(tmp_path / "fused" / file), load_file(tuned / file)
        for key in fused:
            assert torch.allclose(fused[key], wanted[key], atol=1e-4), key
            assert key in added or torch.equal(fused[key], wanted[key])


def test_nothing_is_replaced_unless_told_and_a_source_never(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = write(tmp_path / "a.safetensors", 1), write(tmp_path / "b.safetensors", 2)
    before = out.read_bytes()
    cases: list[list[object]] = [
        ["convert", file, out, "--layout", "kohya"],
        ["merge", file, "--out", out],
        ["resize", file, "--out", out, "--rank", 1],
        ["extract", "one", "other", "--out", out, "--rank", 1],
    ]
    for arguments in cases:
        code, _, err = sdcli(capsys, "lora", *arguments)
        assert code == 2
        assert "exists; name another place or add --overwrite" in err
        assert out.read_bytes() == before
    code, _, err = sdcli(capsys, "lora", "resize", out, "--out", out, "--rank", 1, "--overwrite")
    assert code == 2
    assert "is a source itself" in err
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "gone.safetensors"], "gone.safetensors"),
        (["info", "model.safetensors"], "holds no LoRA"),
        (["convert", "a.safetensors", "out.safetensors", "--layout", "web"], "kohya or diffusers"),
        (["convert", "a.safetensors", "out.pt", "--layout", "kohya"], "is a .safetensors"),
        (
            [*("convert", "other.safetensors", "out.safetensors"), *TO_DIFFUSERS],
            "1 layers are not the model's; name one that the LoRA was made for: lora_unet_other",
        ),
        (["merge", "a.safetensors:nan", "--out", "out.safetensors"], "give a number, such as 0.8"),
        (
            ["merge", "a.safetensors", "--out", "out", "--into", "model", "--rank", "1"],
            "leave them out, or --into",
        ),
        (
            ["merge", "other.safetensors", "--out", "out", "--into", "model"],
            "are no LoRA's of the models given",
        ),
        (["resize", "a.safetensors", "--out", "out.safetensors"], "give a rank, or the share"),
        (["resize", "a.safetensors", "--out", "out.safetensors", "--energy", "2"], "energy 2"),
        (
            ["resize", "a.safetensors", "--out", "out.safetensors", "--rank", "1", "--dtype", "f"],
            "--dtype is 'f'; it must be keep, fp32, fp16, bf16",
        ),
        (["resize", "spoilt.safetensors", "--out", "out.safetensors", "--rank", "1"], "spoilt"),
        (
            ["extract", "model", "model", "--out", "out.safetensors", "--rank", "1"],
            "no linear or convolution of the two models differs",
        ),
        (
            ["extract", "a", "b", "--out", "c.safetensors", "--rank", "1", "--parts", "vae"],
            "--parts is 'vae'; it must be unet, text, or unet,text",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(tiny_model)
    write(tmp_path / "a.safetensors", 1)
    save_file({"conv.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    parts = {"lora_down.weight": torch.ones(1, 4), "lora_up.weight": torch.ones(4, 1)}
    for name, factor in (("other", 1.0), ("spoilt", torch.nan)):
        tensors = {f"lora_unet_{name}.{part}": factor * tensor for part, tensor in parts.items()}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    files = set(tmp_path.iterdir())
    code, out, err = sdcli(capsys, "lora", *arguments)
    assert code == 2
    assert not out
    assert words in err
    assert err.startswith("sdcli: ")
    assert len(err.strip().splitlines()) == 1
    assert set(tmp_path.iterdir()) == files


def test_numbers_too_large_for_a_type_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    parts = {"lora_down.weight": torch.ones(1, 4), "lora_up.weight": 1e6 * torch.ones(4, 1)}
    save_file({f"lora_unet_a.{part}": tensor for part, tensor in parts.items()}, file)
    flags = ["--layout", "kohya", "--dtype", "fp16"]
    code, _, err = sdcli(capsys, "lora", "convert", file, out, *flags)
    assert code == 2
    assert "numbers up to 1e+06, too large for torch.float16" in err
    assert not out.exists()


@pytest.mark.parametrize("command", ["info", "convert", "merge", "extract", "resize"])
def test_every_command_explains_every_flag(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    code, out, _ = sdcli(capsys, "lora", command, "--help")
    assert code == 0
    assert "--json" in out
    assert ("--overwrite" in out) == (command != "info")
