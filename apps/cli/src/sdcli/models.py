"""Which folder a model's name stands for."""

from pathlib import Path

from sdcli.errors import CommandError


def resolve_model(name: str) -> Path:
    """Return the folder of the embedded model or of a model on disk.

    Raises ``CommandError`` when ``name`` is neither, ``SceneError`` when the embedded model is not
    installed.
    """
    from sd_scenes import MODEL_NAME, model_folder

    if name == MODEL_NAME:
        return model_folder()
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise CommandError(
            f"there is no model {name!r}: name the embedded model {MODEL_NAME!r} "
            "or a folder in the diffusers layout"
        )
    return folder
