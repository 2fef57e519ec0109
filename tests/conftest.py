from pathlib import Path

import pytest
import torch

from sd_pipeline import save_model
from tests.tiny_model import tiny_parts


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, tiny_parts(), dtype=torch.float32)
    return folder
