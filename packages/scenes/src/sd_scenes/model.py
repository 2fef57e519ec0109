"""Where the embedded model lies."""

from pathlib import Path

from sd_scenes.errors import SceneError

MODEL_NAME = "scenes"


def model_folder() -> Path:
    """Return the folder of the embedded model, in the diffusers layout.

    Raises :class:`SceneError` when this installation holds no weights.
    """
    folder = Path(__file__).parent / "model"
    if not (folder / "model_index.json").is_file() or not any(folder.glob("*/*.safetensors")):
        raise SceneError(
            f"the model {MODEL_NAME!r} is not installed: {folder} holds no weights;"
            " reinstall sd-scenes or name a model folder"
        )
    return folder
