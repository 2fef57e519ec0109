"""The work of a target is counted, on the network that it is the work of."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import sd_textenc
import sd_unet
import sd_vae
from benchmarks.case import Case
from benchmarks.flops import count_flops


@pytest.fixture
def step(tmp_path: Path) -> Case:
    """Return a guided step of SD 1.5 at 512 x 512, of which nothing but configs is there."""
    configs = {
        "unet": sd_unet.sd15().to_diffusers(),
        "vae": sd_vae.sd15().to_diffusers(),
        "text_encoder": sd_textenc.vit_l14().to_diffusers(),
    }
    for part, config in configs.items():
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(config))
    return Case(target="step", folder=str(tmp_path), width=512, height=512)


def test_a_guided_step_of_sd15_is_two_samples_of_803_gflop(step: Case) -> None:
    assert count_flops(step) / 2 == pytest.approx(0.803e12, rel=2e-3)


def test_its_decoder_has_more_than_two_tflop(step: Case) -> None:
    assert count_flops(replace(step, target="decode")) == pytest.approx(2.51e12, rel=1e-2)


def test_a_picture_is_its_steps_and_a_decode(step: Case) -> None:
    whole = count_flops(replace(step, target="txt2img", steps=3, batch=2))
    parts = [count_flops(replace(step, target=name, batch=2)) for name in ("step", "decode")]
    assert whole == 3 * parts[0] + parts[1]


def test_a_training_step_is_two_passes_or_three(step: Case) -> None:
    lora, full, dreambooth = (
        count_flops(replace(step, target="train", method=method))
        for method in ("lora", "full", "dreambooth")
    )
    # Back through attention it is two and a half.
    assert lora == pytest.approx(1.726e12, rel=2e-3)
    assert full == pytest.approx(3 * 0.803e12, rel=0.06)
    assert dreambooth == 2 * full  # of the subject, and of its class
