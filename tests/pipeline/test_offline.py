"""A single file needs no network: it draws where there is none at all."""

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from sd_pipeline import open_model, write_single_file
from tests.parity import peers

_ISOLATE = ("unshare", "--net", "--map-root-user")
_PROBE = "import socket; socket.create_connection(('127.0.0.1', 9), timeout=2)"


def isolated(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_ISOLATE, *command], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.skipif(
    sys.platform != "linux" or subprocess.run([*_ISOLATE, "true"], check=False).returncode != 0,
    reason="this system lets no process leave the network",
)
@pytest.mark.parametrize("family", ["sd1", "sd2-v", "sdxl"])
def test_a_bare_single_file_draws_in_a_namespace_without_a_network(
    family: str, tmp_path: Path
) -> None:
    assert "unreachable" in isolated(sys.executable, "-c", _PROBE).stderr
    peers.FAMILIES[family](tmp_path).save_pretrained(tmp_path / "folder")
    whole, bare = tmp_path / "whole.safetensors", tmp_path / "bare.safetensors"
    write_single_file(whole, open_model(tmp_path / "folder"))
    save_file(load_file(whole), bare)  # without the configs that our files state
    drawn = isolated(
        *(sys.executable, "-c", "from sdcli.main import main; main()", "txt2img", "a fox"),
        *("--model", str(bare), "--steps", "1", "--width", "64", "--height", "64"),
        *("--out", str(tmp_path / "fox.png")),
    )
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "fox.png").is_file()
