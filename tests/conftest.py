import os
from pathlib import Path

import pytest

# Tests run in several processes; with more threads than processors these wait for one another.
# torch and every program that a test starts read it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from sd_pipeline import save_model
from tests.tiny_model import tiny_parts


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, tiny_parts(), dtype=torch.float32)
    return folder


@pytest.fixture(scope="session")
def tiny_pix2pix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "pix2pix"
    save_model(folder, tiny_parts(in_channels=8), dtype=torch.float32)
    return folder


@pytest.fixture(scope="session")
def tiny_depth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "depth"
    save_model(folder, tiny_parts(in_channels=5), dtype=torch.float32)
    return folder
