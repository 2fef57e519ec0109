"""Whether a UNet that learns on is taught as it was before."""

from pathlib import Path

from sd_pipeline import open_model
from sd_sampler import DiffusionConfig

_COMPARED = {
    "objective.prediction": "prediction",
    "schedule.name": "schedule",
    "schedule.num_timesteps": "num_timesteps",
    "schedule.beta_start": "beta_start",
    "schedule.beta_end": "beta_end",
    "schedule.zero_terminal_snr": "zero_terminal_snr",
}


def differences(init_from: str, diffusion: DiffusionConfig) -> str:
    """Tell which settings a run does not share with the model that its UNet is of.

    An empty text where all are the same, or where nothing but the UNet is there.
    """
    path = Path(init_from)
    model = path if path.is_file() or (path / "model_index.json").is_file() else path.parent
    if model.is_dir() and not (model / "model_index.json").is_file():
        return ""
    before = open_model(model).scheduler.diffusion
    told = [
        f"{setting} = {getattr(before, name)!r} (here {getattr(diffusion, name)!r})"
        for setting, name in _COMPARED.items()
        if getattr(before, name) != getattr(diffusion, name)
    ]
    if not told:
        return ""
    return (
        f"init_from = {init_from!r} was taught with {', '.join(told)}: "
        "what differs it has to learn anew; set it likewise unless that is meant"
    )
