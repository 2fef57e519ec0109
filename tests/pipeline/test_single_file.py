"""What a single file tells of itself, and what is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sd_checkpoint import CheckpointError
from sd_pipeline import PipelineError, inspect_model, open_model, write_single_file
from tests.parity import peers


@pytest.fixture(scope="module")
def sd2(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The tensors of an SD 2.x file that says nothing of what it predicts."""
    folder = tmp_path_factory.mktemp("sd2")
    peers.FAMILIES["sd2-v"](folder).save_pretrained(folder / "model")
    write_single_file(folder / "a.safetensors", open_model(folder / "model"))
    tensors = load_file(folder / "a.safetensors")
    del tensors["v_pred"]
    return tensors


def prediction(path: Path) -> tuple[str, bool]:
    diffusion = open_model(path).scheduler.diffusion
    return diffusion.prediction, diffusion.zero_terminal_snr


def test_marks_and_metadata_tell_the_prediction(sd2: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(sd2, path)
    assert prediction(path) == ("v", False)
    assert "the file itself does not say" in inspect_model(path).prediction_told_by
    save_file(sd2, path, {"modelspec.prediction_type": "epsilon"})
    assert prediction(path) == ("eps", False)
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    save_file({**sd2, **marks}, path, {"modelspec.prediction_type": "epsilon"})
    assert prediction(path) == ("v", True)
    assert inspect_model(path).prediction_told_by == "the key v_pred"


def test_the_base_of_sd_2_is_told_by_its_step_count(sd2: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    for global_step, expected in ((875000, "eps"), (140000, "v")):
        torch.save({"state_dict": sd2, "global_step": global_step}, path)
        assert prediction(path) == (expected, False)


def test_only_the_unet_that_predicts_v_is_large_and_attends_in_float32(
    sd2: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    for name, sample_size, upcast in (("v", 96, True), ("epsilon", 64, False)):
        save_file(sd2, path, {"modelspec.prediction_type": name})
        config = open_model(path).unet.config
        assert (config.sample_size, config.upcast_attention) == (sample_size, upcast)


def test_what_trainers_leave_behind_is_passed_over(sd2: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    rubbish = (
        "betas",
        "alphas_cumprod_prev",
        "model_ema.decay",
        "model_ema.num_updates",
        "first_stage_model.loss.discriminator.main.0.weight",
        "cond_stage_model.model.attn_mask",
        "cond_stage_model.model.logit_scale",
    )
    save_file({**sd2, **{key: torch.zeros(1) for key in rubbish}}, path)
    model = open_model(path)
    assert model.family.name == "sd2"
    assert not inspect_model(path).missing


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"surprise.weight": torch.zeros(1)}, r"1 keys that no part .*: surprise\.weight"),
        ({"model.diffusion_model.surprise.weight": torch.zeros(1)}, r"fit no rule.*surprise"),
        ({"first_stage_model.surprise": torch.zeros(1)}, r"fit no rule.*surprise"),
        ({"model_ema.diffusion_modelout2bias": torch.zeros(4)}, "EMA weights for a part"),
    ],
)
def test_keys_that_nobody_knows_are_listed(
    sd2: dict[str, Tensor], tmp_path: Path, change: dict[str, Tensor], words: str
) -> None:
    save_file({**sd2, **change}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=words):
        open_model(tmp_path / "a.safetensors")


def test_a_missing_key_is_listed_and_nothing_loads_half(
    sd2: dict[str, Tensor], tmp_path: Path
) -> None:
    from sd_pipeline import build

    path = tmp_path / "a.safetensors"
    lost = "model.diffusion_model.out.2.bias"
    save_file({key: tensor for key, tensor in sd2.items() if key != lost}, path)
    with pytest.raises(CheckpointError, match=r"1 missing \(conv_out\.bias\)"):
        build(open_model(path))
    assert "lacks 1 tensors: conv_out.bias" in inspect_model(path).missing[0]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"], "is a LoRA adapter"),
        (["emb_params"], "is a textual-inversion embedding"),
        (["decoder.up.0.block.0.conv1.weight"], "is an autoencoder alone"),
        (["down_blocks.0.resnets.0.conv1.weight"], "is a UNet alone"),
        (["double_blocks.0.img_attn.proj.weight"], "is a FLUX model"),
        (["something.else"], "is of no known family"),
        (["cond_stage_model.model.ln_final.weight"], "without model.diffusion_model, first_stage"),
    ],
)
def test_files_that_are_no_model_are_called_what_they_are(
    tmp_path: Path, keys: list[str], words: str
) -> None:
    path = tmp_path / "a.safetensors"
    save_file({key: torch.zeros(2) for key in keys}, path)
    with pytest.raises(PipelineError, match=words):
        open_model(path)


def test_a_file_is_written_under_its_own_suffix_only(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"ends in '\.ckpt'"):
        write_single_file(tmp_path / "a.ckpt", open_model(tiny_model))
    assert not list(tmp_path.iterdir())
