"""Noise schedules, training targets and diffusion samplers on plain tensors."""

from sd_sampler.config import DiffusionConfig
from sd_sampler.ddim import DDIMOptions, ddim
from sd_sampler.ddpm import ddpm, ddpm_large
from sd_sampler.denoiser import clipped, denoiser
from sd_sampler.dpmpp import dpmpp_2m
from sd_sampler.errors import SamplerError
from sd_sampler.euler import euler, euler_ancestral
from sd_sampler.guidance import classifier_free, combine
from sd_sampler.noise import NoiseSource
from sd_sampler.plan import Plan, PlanOptions, plan
from sd_sampler.prediction import EPS, PREDICTIONS, X0, Prediction, Scalings, V, prediction
from sd_sampler.protocols import Denoiser, Network, Noise, OnStep, Sampler
from sd_sampler.registry import SAMPLERS, SamplerEntry, get_sampler
from sd_sampler.schedule import SCHEDULES, NoiseSchedule, noise_schedule
from sd_sampler.sigmas import (
    SIGMA_SCHEDULES,
    SPACINGS,
    karras_sigmas,
    make_sigmas,
    spaced_timesteps,
)
from sd_sampler.timesteps import (
    TIMESTEP_SAMPLERS,
    antithetic_timesteps,
    timestep_sampler,
    uniform_timesteps,
)
from sd_sampler.weights import LOSS_WEIGHTS, LossWeight, loss_weight, min_snr

__all__ = [
    "EPS",
    "LOSS_WEIGHTS",
    "PREDICTIONS",
    "SAMPLERS",
    "SCHEDULES",
    "SIGMA_SCHEDULES",
    "SPACINGS",
    "TIMESTEP_SAMPLERS",
    "X0",
    "DDIMOptions",
    "Denoiser",
    "DiffusionConfig",
    "LossWeight",
    "Network",
    "Noise",
    "NoiseSchedule",
    "NoiseSource",
    "OnStep",
    "Plan",
    "PlanOptions",
    "Prediction",
    "Sampler",
    "SamplerEntry",
    "SamplerError",
    "Scalings",
    "V",
    "antithetic_timesteps",
    "classifier_free",
    "clipped",
    "combine",
    "ddim",
    "ddpm",
    "ddpm_large",
    "denoiser",
    "dpmpp_2m",
    "euler",
    "euler_ancestral",
    "get_sampler",
    "karras_sigmas",
    "loss_weight",
    "make_sigmas",
    "min_snr",
    "noise_schedule",
    "plan",
    "prediction",
    "spaced_timesteps",
    "timestep_sampler",
    "uniform_timesteps",
]
