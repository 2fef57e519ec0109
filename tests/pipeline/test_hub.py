import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sd_pipeline import HubName, PipelineError
from sd_pipeline.hub import wanted_files
from tests.pipeline.fake_hub import REPO, Hub, serve

SD15 = (
    "README.md",
    "model_index.json",
    "v1-5-pruned-emaonly.safetensors",
    "feature_extractor/preprocessor_config.json",
    "safety_checker/config.json",
    "safety_checker/model.safetensors",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/model.safetensors",
    "text_encoder/pytorch_model.bin",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "vae/diffusion_flax_model.msgpack",
)


def test_names_of_the_hub_are_told_from_paths() -> None:
    assert HubName.parse("acme/tiny") == HubName(repo="acme/tiny")
    assert HubName.parse("acme/tiny@v1.0") == HubName(repo="acme/tiny", revision="v1.0")
    file = HubName.parse("acme/tiny/sub/model.safetensors")
    assert file == HubName(repo="acme/tiny", file="sub/model.safetensors")
    for name in ("tiny", "./acme/tiny", "/acme/tiny", "acme/../tiny", "acme/", "a b/c", ""):
        assert HubName.parse(name) is None
    assert str(HubName.parse("acme/tiny/model.ckpt@pr/1")) == "acme/tiny/model.ckpt@pr/1"


def test_of_a_repository_only_what_a_picture_needs_is_wanted() -> None:
    wanted = wanted_files(SD15, None, what="acme/sd15")
    assert "unet/diffusion_pytorch_model.safetensors" in wanted
    assert "tokenizer/vocab.json" in wanted
    assert "README.md" in wanted
    for name in wanted:
        assert not name.endswith((".bin", ".msgpack"))
        assert "fp16" not in name
        assert "non_ema" not in name
        assert not name.startswith(("safety_checker", "feature_extractor", "v1-5"))


def test_a_variant_is_taken_instead_of_the_plain_weights() -> None:
    wanted = wanted_files(SD15, "fp16", what="acme/sd15")
    weights = [name for name in wanted if name.endswith(".safetensors")]
    assert len(weights) == 3
    assert all("fp16" in name for name in weights)


def test_parts_without_the_variant_come_as_they_are() -> None:
    wanted = wanted_files(SD15, "non_ema", what="acme/sd15")
    weights = [name for name in wanted if name.endswith(".safetensors")]
    assert weights == [
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]


def test_shards_come_with_their_index() -> None:
    files = [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
    ]
    assert wanted_files(files, None, what="x") == sorted(files[:5])
    assert wanted_files(files, "fp16", what="x") == sorted(files[:2] + files[5:])


def test_a_variant_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(PipelineError, match=r"unet has no variant 'bf16'; there is fp16, non_ema"):
        wanted_files([name for name in SD15 if "unet" in name or "/" not in name], "bf16", what="x")


def test_a_repository_of_single_files_must_be_told_which() -> None:
    assert wanted_files(["a.safetensors", "README.md"], None, what="x") == ["a.safetensors"]
    with pytest.raises(PipelineError, match=r"holds 2 models; name one, such as x/a\.safetensors"):
        wanted_files(["a.safetensors", "b.safetensors"], None, what="x")
    with pytest.raises(PipelineError, match="holds no model"):
        wanted_files(["README.md"], None, what="x")


def sdcli(*arguments: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", "from sdcli.main import main; main()", *arguments],
        env={**kept, "HF_HOME": str(home), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def hub(tiny_model: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_model, tmp_path / "served")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"never fetched")
    with serve(folder) as running:
        yield running


def test_a_model_is_pulled_once_and_then_drawn_with_no_hub_at_all(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    pulled = sdcli("models", "pull", REPO, home=home, HF_ENDPOINT=hub.url)
    assert pulled.returncode == 0, pulled.stderr
    assert Path(pulled.stdout.strip(), "model_index.json").is_file()
    assert not any("pytorch_model.bin" in request for request in hub.requests)
    asked = len(hub.requests)
    drawn = sdcli(
        "txt2img", "a cat", "--model", REPO, "--steps", "1", "--out", str(tmp_path / "a.png"),
        home=home, HF_ENDPOINT=hub.url,
    )  # fmt: skip
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "a.png").is_file()
    assert len(hub.requests) == asked


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    # Downloads are kept in pieces of ten megabytes.
    large = {"weight": torch.arange(6_000_000, dtype=torch.float32)}
    save_file(large, hub.folder / "text_encoder" / "model.safetensors")
    hub.cut_after, hub.num_cuts = 15_000_000, 2
    pulled = sdcli("models", "pull", REPO, home=tmp_path / "home", HF_ENDPOINT=hub.url)
    assert pulled.returncode == 0, pulled.stderr
    assert hub.ranges
    assert all(start.startswith("model.safetensors from 1") for start in hub.ranges)
    folder = Path(pulled.stdout.strip())
    for file in folder.rglob("*.safetensors"):
        assert file.read_bytes() == (hub.folder / file.relative_to(folder)).read_bytes()


def test_a_pull_that_failed_keeps_the_files_that_have_arrived(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    lost = hub.folder / "vae" / "diffusion_pytorch_model.safetensors"
    hub.broken = lost
    failed = sdcli("models", "pull", REPO, home=home, HF_ENDPOINT=hub.url)
    assert failed.returncode == 2
    assert "try again" in failed.stderr.splitlines()[-1]
    offline = sdcli(
        "txt2img", "a cat", "--model", REPO, "--out", str(tmp_path / "a.png"),
        home=home, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1",
    )  # fmt: skip
    assert offline.returncode == 2
    assert "HF_HUB_OFFLINE" in offline.stderr.splitlines()[-1]
    hub.broken = None
    hub.requests.clear()
    again = sdcli("models", "pull", REPO, home=home, HF_ENDPOINT=hub.url)
    assert again.returncode == 0, again.stderr
    fetched = {r.rsplit("/", 1)[-1] for r in hub.requests if r.startswith("GET") and "resolve" in r}
    assert fetched == {lost.name}


def test_a_private_model_wants_the_token(hub: Hub, tmp_path: Path) -> None:
    hub.token = "hf_secret"
    refused = sdcli("models", "pull", REPO, home=tmp_path / "h", HF_ENDPOINT=hub.url)
    assert refused.returncode == 2
    assert "HF_TOKEN" in refused.stderr.splitlines()[-1]
    let_in = sdcli(
        "models", "pull", REPO, home=tmp_path / "h", HF_ENDPOINT=hub.url, HF_TOKEN="hf_secret"
    )
    assert let_in.returncode == 0, let_in.stderr


def test_offline_and_not_cached_is_said_and_no_socket_is_opened(hub: Hub, tmp_path: Path) -> None:
    drawn = sdcli(
        "txt2img", "a cat", "--model", REPO, "--out", str(tmp_path / "a.png"),
        home=tmp_path / "home", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1",
    )  # fmt: skip
    assert drawn.returncode == 2
    assert "HF_HUB_OFFLINE" in drawn.stderr.splitlines()[-1]
    assert not hub.requests


def test_a_model_the_hub_does_not_have_is_said_in_one_line(hub: Hub, tmp_path: Path) -> None:
    missing = sdcli("models", "pull", "acme/huge", home=tmp_path / "h", HF_ENDPOINT=hub.url)
    assert missing.returncode == 2
    assert "the Hub has no model 'acme/huge'" in missing.stderr.splitlines()[-1]
    assert "Traceback" not in missing.stderr
