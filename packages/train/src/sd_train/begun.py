"""Whether a UNet that learns on is taught as it was before."""

from pathlib import Path

from sd_pipeline import find_scheduler
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

    An empty text where all are the same, or where nothing tells how it was taught.
    """
    scheduler = find_scheduler(Path(init_from))
    if scheduler is None:
        return ""
    before = scheduler.diffusion
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
