"""The diffusion process of a model, as its scheduler_config.json states it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sd_sampler.errors import SamplerError, unknown
from sd_sampler.flow import FlowSchedule
from sd_sampler.plan import PlanOptions
from sd_sampler.prediction import Prediction, prediction
from sd_sampler.schedule import NoiseSchedule

# Our names of the beta schedules and diffusers', the same but for one.
_BETA_SCHEDULES = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "cosine": "squaredcos_cap_v2",
    "sigmoid": "sigmoid",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionConfig:
    """State a model's noise schedule, prediction and timesteps; the defaults are SD 1.x's.

    `prediction` is eps, v, x0 or flow, whose schedule is a `FlowSchedule` of `num_timesteps`
    whatever the betas. `spacing`, `steps_offset`, `set_alpha_to_one` and `clip_sample` are those of
    `PlanOptions`. Raises `SamplerError` for unknown names.
    """

    schedule: str = "scaled_linear"
    num_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    zero_terminal_snr: bool = False
    prediction: str = "eps"
    spacing: str = "leading"
    steps_offset: int = 1
    set_alpha_to_one: bool = False
    clip_sample: float | None = None

    def __post_init__(self) -> None:
        if self.schedule not in _BETA_SCHEDULES:
            raise unknown("noise schedule", self.schedule, _BETA_SCHEDULES)
        prediction(self.prediction)
        self.plan_options()

    def noise_schedule(self) -> NoiseSchedule:
        """Build the noise schedule."""
        if self.prediction == "flow":
            return FlowSchedule(self.num_timesteps)
        betas = (self.num_timesteps, self.beta_start, self.beta_end)
        if self.schedule == "cosine":
            built = NoiseSchedule.cosine(self.num_timesteps)
        elif self.schedule == "linear":
            built = NoiseSchedule.linear(*betas)
        elif self.schedule == "sigmoid":
            built = NoiseSchedule.sigmoid(*betas)
        else:
            built = NoiseSchedule.scaled_linear(*betas)
        return built.rescaled_zero_terminal_snr() if self.zero_terminal_snr else built

    def prediction_object(self) -> Prediction:
        """Return the prediction's object."""
        return prediction(self.prediction)

    def plan_options(
        self, *, eta: float | None = None, match_diffusers: bool = True
    ) -> PlanOptions:
        """Return the options to `plan` a run of this model with."""
        return PlanOptions(
            spacing=self.spacing,
            steps_offset=self.steps_offset,
            set_alpha_to_one=self.set_alpha_to_one,
            clip_sample=self.clip_sample,
            eta=eta,
            match_diffusers=match_diffusers,
        )

    def to_diffusers(self) -> dict[str, Any]:
        """Return a scheduler_config.json for diffusers' DDIMScheduler."""
        return {
            "_class_name": "DDIMScheduler",
            "num_train_timesteps": self.num_timesteps,
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "beta_schedule": _BETA_SCHEDULES[self.schedule],
            "trained_betas": None,
            "clip_sample": self.clip_sample is not None,
            "clip_sample_range": 1.0 if self.clip_sample is None else self.clip_sample,
            "set_alpha_to_one": self.set_alpha_to_one,
            "steps_offset": self.steps_offset,
            "prediction_type": prediction(self.prediction).diffusers_name,
            "timestep_spacing": self.spacing,
            "rescale_betas_zero_snr": self.zero_terminal_snr,
            "thresholding": False,
            **({"use_flow_sigmas": True} if self.prediction == "flow" else {}),
        }

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> "DiffusionConfig":
        """Read any of diffusers' scheduler configs; raises `SamplerError` for one beyond us.

        What a config leaves out is what diffusers' DDIMScheduler takes for it, but `clip_sample`,
        `set_alpha_to_one` and `timestep_spacing`, which are read as its class there reads them.
        """
        for key in ("trained_betas", "thresholding", "use_dynamic_shifting"):
            if config.get(key):
                raise SamplerError(f"scheduler config has {key}, which is not supported: remove it")
        for key in ("shift", "flow_shift"):
            if config.get(key, 1) != 1:
                raise SamplerError(
                    f"scheduler config has a {key} of {config[key]}, which is not supported: set 1"
                )
        named = {theirs: ours for ours, theirs in _BETA_SCHEDULES.items()}
        beta_schedule = config.get("beta_schedule", "linear")
        if beta_schedule not in named:
            raise unknown("beta_schedule", str(beta_schedule), named)
        clips = str(config.get("_class_name")) in ("DDIMScheduler", "DDPMScheduler")
        evenly = any(word in str(config.get("_class_name")) for word in ("Euler", "DPMSolver"))
        pseudo = config.get("_class_name") == "PNDMScheduler"
        clip = config.get("clip_sample", clips)
        kind = "flow" if "FlowMatch" in str(config.get("_class_name")) else "epsilon"
        return cls(
            schedule=named[beta_schedule],
            num_timesteps=config.get("num_train_timesteps", 1000),
            beta_start=config.get("beta_start", 0.0001),
            beta_end=config.get("beta_end", 0.02),
            zero_terminal_snr=config.get("rescale_betas_zero_snr", False),
            prediction=prediction(config.get("prediction_type", kind)).name,
            spacing=config.get("timestep_spacing", "linspace" if evenly else "leading"),
            steps_offset=config.get("steps_offset", 0),
            set_alpha_to_one=config.get("set_alpha_to_one", not pseudo),
            clip_sample=config.get("clip_sample_range", 1.0) if clip else None,
        )
