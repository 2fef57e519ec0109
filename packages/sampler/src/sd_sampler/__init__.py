"""Noise schedules, training targets and diffusion samplers on plain tensors."""

from sd_sampler.config import DiffusionConfig
from sd_sampler.consistency import lcm, tcd
from sd_sampler.ddim import DDIMOptions, ddim
from sd_sampler.ddpm import ddpm, ddpm_large
from sd_sampler.denoiser import clipped, denoiser
from sd_sampler.dpmpp import dpmpp_2m
from sd_sampler.dpmpp_sde import dpmpp_2m_sde, dpmpp_3m_sde, dpmpp_sde
from sd_sampler.er_sde import er_sde
from sd_sampler.errors import SamplerError
from sd_sampler.euler import euler, euler_ancestral
from sd_sampler.flow import FlowSchedule
from sd_sampler.guidance import Guidance, GuidanceOptions, classifier_free, combine, compose
from sd_sampler.inversion import ddim_inversion
from sd_sampler.ladders import (
    exponential_sigmas,
    karras_sigmas,
    kl_optimal_sigmas,
    lcm_timesteps,
    polyexponential_sigmas,
)
from sd_sampler.multistep import deis, lms, plms
from sd_sampler.noise import BlendedNoise, NoiseSource, slerp
from sd_sampler.plan import Plan, PlanOptions, plan
from sd_sampler.prediction import EPS, FLOW, PREDICTIONS, X0, Prediction, Scalings, V, prediction
from sd_sampler.protocols import (
    Denoiser,
    Network,
    Noise,
    OnStep,
    Sampler,
    batch_sigma,
    level_of,
)
from sd_sampler.registry import (
    SAMPLERS,
    SamplerEntry,
    get_sampler,
    parse_sampler,
    parse_schedule,
)
from sd_sampler.restart import restart
from sd_sampler.schedule import SCHEDULES, NoiseSchedule, noise_schedule
from sd_sampler.second_order import dpm2, dpm2_ancestral, dpmpp_2s_ancestral, heun
from sd_sampler.sigmas import SIGMA_SCHEDULES, SPACINGS, make_sigmas, spaced_timesteps
from sd_sampler.timesteps import (
    TIMESTEP_SAMPLERS,
    antithetic_timesteps,
    logit_normal_timesteps,
    timestep_sampler,
    uniform_timesteps,
)
from sd_sampler.training_noise import multires_noise, offset_noise
from sd_sampler.unipc import unipc
from sd_sampler.weights import LOSS_WEIGHTS, LossWeight, loss_weight, min_snr

__all__ = [
    "EPS",
    "FLOW",
    "LOSS_WEIGHTS",
    "PREDICTIONS",
    "SAMPLERS",
    "SCHEDULES",
    "SIGMA_SCHEDULES",
    "SPACINGS",
    "TIMESTEP_SAMPLERS",
    "X0",
    "BlendedNoise",
    "DDIMOptions",
    "Denoiser",
    "DiffusionConfig",
    "FlowSchedule",
    "Guidance",
    "GuidanceOptions",
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
    "batch_sigma",
    "classifier_free",
    "clipped",
    "combine",
    "compose",
    "ddim",
    "ddim_inversion",
    "ddpm",
    "ddpm_large",
    "deis",
    "denoiser",
    "dpm2",
    "dpm2_ancestral",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s_ancestral",
    "dpmpp_3m_sde",
    "dpmpp_sde",
    "er_sde",
    "euler",
    "euler_ancestral",
    "exponential_sigmas",
    "get_sampler",
    "heun",
    "karras_sigmas",
    "kl_optimal_sigmas",
    "lcm",
    "lcm_timesteps",
    "level_of",
    "lms",
    "logit_normal_timesteps",
    "loss_weight",
    "make_sigmas",
    "min_snr",
    "multires_noise",
    "noise_schedule",
    "offset_noise",
    "parse_sampler",
    "parse_schedule",
    "plan",
    "plms",
    "polyexponential_sigmas",
    "prediction",
    "restart",
    "slerp",
    "spaced_timesteps",
    "tcd",
    "timestep_sampler",
    "uniform_timesteps",
    "unipc",
]
