"""Every package imports alone, and the command line answers without torch."""

import subprocess
import sys

import pytest

PACKAGES = (
    "sd_adapters",
    "sd_checkpoint",
    "sd_ops",
    "sd_pipeline",
    "sd_sampler",
    "sd_scenes",
    "sd_textenc",
    "sd_train",
    "sd_unet",
    "sd_vae",
)


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint('\\n' + ' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_alone_in_its_own_process(package: str) -> None:
    loaded = {name.split(".")[0] for name in modules_after(f"import {package}")}
    assert package in loaded
    assert not loaded & {"sdcli", "typer", "diffusers", "transformers", "open_clip"}


def test_help_reaches_neither_torch_nor_the_packages_behind_it() -> None:
    code = "from sdcli.main import run\nassert run(['txt2img', '--help']) == 0"
    loaded = {name.split(".")[0] for name in modules_after(code)}
    assert not loaded & {"torch", "numpy", "PIL", "transformers", "open_clip", *PACKAGES}


def test_drawing_with_the_embedded_model_needs_neither_transformers_nor_open_clip() -> None:
    code = (
        "from sd_pipeline import Txt2Img, load_pipeline\n"
        "from sd_scenes import model_folder\n"
        "pipeline = load_pipeline(model_folder(), device='cpu', dtype='fp32')\n"
        "assert list(pipeline.txt2img(Txt2Img(prompt='a cat', num_steps=1)))"
    )
    loaded = {name.split(".")[0] for name in modules_after(code)}
    assert "sd_textenc" in loaded
    assert not loaded & {"transformers", "open_clip", "torchvision", "diffusers", "scipy"}
