"""`sdcli lora`: info, convert, merge, extract and resize, as a user meets them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sd_pipeline import Parts, save_model
from sd_textenc import DualTextEncoder, train_tokenizer
from sd_unet import UNet, UNetConfig
from tests.cli.loras import (
    ATTENTION,
    HEADER,
    LAYER,
    LINEAR,
    PLACES,
    RESNET,
    TEXT,
    TEXT_2,
    UNET,
    additions,
    changed,
    header,
    sdcli,
    told,
    write,
)
from tests.textenc.towers import clip_config, open_clip_config, tower
from tests.tiny_model import CAPTIONS, tiny_parts


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


@pytest.mark.parametrize("command", ["merge", "resize"])
def test_a_file_of_diffusers_layout_is_read_as_one_of_kohyas(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    kohya, peft = write(tmp_path / "a.safetensors", 1, alpha=2.0), tmp_path / "peft.safetensors"
    told(capsys, "convert", kohya, peft, "--layout", "diffusers", "--model", tiny_model)
    found = []
    for file in (kohya, peft):
        out = tmp_path / f"from-{file.name}"
        told(capsys, command, file, "--out", out, "--rank", 2)
        found.append(additions(out))
    assert found[0].keys() == found[1].keys()
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-5) for name in found[0])


def test_what_is_made_is_written_in_diffusers_layout_too(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.safetensors", 3, rank=2)
    changes: dict[str, dict[str, Tensor]] = {}
    for name, (_, owner, key) in PLACES.items():
        changes.setdefault(owner, {})[key] = additions(file)[name]
    tuned = changed(tiny_model, tmp_path / "tuned", changes)
    made, back = tmp_path / "made.safetensors", tmp_path / "back.safetensors"
    of_names = ("--layout", "diffusers", "--model", tiny_model)
    for command in (
        ("extract", tiny_model, tuned, "--rank", 2, "--layout", "diffusers"),
        ("merge", file, *of_names),
        ("resize", file, "--rank", 2, *of_names),
    ):
        told(capsys, *command, "--out", made, "--overwrite")
        assert f"unet.{ATTENTION}.lora_A.weight" in load_file(made)
        told(capsys, "convert", made, back, "--layout", "kohya", "--overwrite")
        found, wanted = additions(back), additions(file)
        assert found.keys() == wanted.keys()
        assert all(torch.allclose(found[name], wanted[name], atol=1e-4) for name in wanted)


def test_towers_without_text_model_in_their_names_are_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, bare = write(tmp_path / "a.safetensors", 1), tmp_path / "bare.safetensors"
    tensors = {key.replace("_text_model", ""): tensor for key, tensor in load_file(file).items()}
    save_file(tensors, bare)
    out = tmp_path / "out.safetensors"
    told(capsys, "merge", f"{file}:1", f"{bare}:-1", "--out", out)
    assert len(additions(out)) == len(PLACES)
    assert all(addition.abs().max() < 1e-4 for addition in additions(out).values())


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
