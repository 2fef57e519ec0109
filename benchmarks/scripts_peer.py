"""The peer's arm of a training step: the loop of diffusers' example scripts, at their defaults.

`train_text_to_image.py` for all weights, `train_dreambooth.py` with `--with_prior_preservation` for
those with the class beside them, `train_text_to_image_lora.py` (DreamBooth's has the same step) for
a LoRA: torch's AdamW, PEFT's layers, clipping, and the loss told at every step. What accelerate
does to a model is done here by hand: autocast around its forward pass.

The scripts keep no latents and no text states but encode the pictures and captions of every batch.
With `Case.uncached` they do so here, too; what comes out is put aside for the lesson's, so that
both sides learn from the same numbers.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import diffusers
import torch
import torch.nn.functional as F
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from benchmarks import learning
from benchmarks.arms import CannotRun, Run
from benchmarks.case import Case
from benchmarks.inputs import Inputs, config_of, normal, torch_dtype
from benchmarks.learning import Witness

_PARTS = {"lora_A.default.weight": "down", "lora_B.default.weight": "up"}


class Scripts:
    """The arm."""

    def imports(self, case: Case) -> None:
        _ = diffusers.UNet2DConditionModel, diffusers.DDPMScheduler
        import sd_train.seeds  # noqa: F401  (what is drawn is drawn alike)

        if case.uncached:
            _ = diffusers.AutoencoderKL, _text_class()
        if not case.learns_all:
            if importlib.util.find_spec("peft") is None:
                raise CannotRun("peft is not installed")
            import peft  # noqa: F401

    def load(self, case: Case) -> Sequence[nn.Module]:
        kind = diffusers.UNet2DConditionModel
        self._unet: Any = kind.from_pretrained(
            case.folder, subfolder="unet", torch_dtype=torch.float32
        )
        # What is frozen is kept in half precision, what learns is not.
        self._unet.to(case.device, torch.float32 if case.learns_all else torch_dtype(case))
        self._noise = diffusers.DDPMScheduler.from_pretrained(case.folder, subfolder="scheduler")
        self._encoders = _Encoders(case) if case.uncached else None
        if self._noise.config.prediction_type not in ("epsilon", "v_prediction"):
            raise CannotRun(f"the scripts know no {self._noise.config.prediction_type} prediction")
        return [self._unet, *(self._encoders.networks if self._encoders else ())]

    def prepare(self, case: Case, inputs: Inputs) -> Run:  # noqa: ARG002  (there is a lesson)
        learnt = _whole(self._unet) if case.learns_all else _adapted(self._unet, case.seed)
        parameters = list(learnt.values())
        optimizer = torch.optim.AdamW(
            parameters,
            lr=learning.LEARNING_RATE,
            betas=learning.BETAS,
            weight_decay=learning.WEIGHT_DECAY,
            eps=1e-8,
        )
        averages = EMAModel(parameters, decay=learning.EMA_DECAY) if case.ema else None
        self._unet.train()
        witness, loss_of = Witness(learnt), self._loss(case)

        def run() -> Tensor:
            loss = loss_of()
            loss.item()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, learning.CLIP_NORM)
            optimizer.step()
            optimizer.zero_grad()
            if averages is not None:
                averages.step(parameters)
            return witness.noted(loss)

        return run

    def _loss(self, case: Case) -> Callable[[], Tensor]:
        """Return what computes the loss of the next step."""
        lesson, device, dtype = learning.make_lesson(case), torch.device(case.device), torch.float32
        if case.dtype != "fp32":
            dtype = torch_dtype(case)
        factor, unet, scheduler = config_of(case, "vae")["scaling_factor"], self._unet, self._noise
        count, steps = scheduler.config.num_train_timesteps, iter(range(10**9))

        def loss() -> Tensor:
            if self._encoders is not None:
                self._encoders.encode()
            latents = lesson.latents.to(device, dtype) * factor
            states = lesson.states.to(device, dtype)
            timesteps, noise = learning.drawn(case, next(steps), latents.shape, count)
            timesteps, noise = timesteps.to(device), noise.to(device, dtype)
            noisy = scheduler.add_noise(latents, noise, timesteps)
            with torch.autocast(device.type, torch_dtype(case), enabled=case.dtype != "fp32"):
                output = unet(noisy, timesteps, states, return_dict=False)[0]
            target = noise
            if scheduler.config.prediction_type == "v_prediction":
                target = scheduler.get_velocity(latents, noise, timesteps)
            if case.method == "dreambooth":
                (own, prior), (its, priors) = output.float().chunk(2), target.float().chunk(2)
                return F.mse_loss(own, its) + learning.PRIOR_WEIGHT * F.mse_loss(prior, priors)
            return F.mse_loss(output.float(), target.float(), reduction="mean")

        return loss


class _Encoders:
    """The frozen parts of the scripts, in the type of what is frozen."""

    def __init__(self, case: Case) -> None:
        dtype, shown = torch_dtype(case), case.num_shown
        self._vae: Any = diffusers.AutoencoderKL.from_pretrained(
            case.folder, subfolder="vae", torch_dtype=dtype
        )
        self._text: Any = _text_class().from_pretrained(
            case.folder, subfolder="text_encoder", torch_dtype=dtype
        )
        self.networks: Sequence[nn.Module] = [self._vae, self._text]
        for network in self.networks:
            network.to(case.device).requires_grad_(False)
        pixels = normal((shown, 3, case.height, case.width), case.seed - 2).clamp(-1, 1)
        self._pixels = pixels.to(case.device, dtype)
        length = self._text.config.max_position_embeddings
        self._tokens = torch.full((shown, length), self._text.config.eos_token_id)
        self._tokens = self._tokens.to(case.device)

    def encode(self) -> None:
        """Encode a batch as the scripts do, under no `no_grad`: nothing here learns."""
        self._vae.encode(self._pixels).latent_dist.sample()
        self._text(self._tokens, return_dict=False)


def _text_class() -> Any:
    return importlib.import_module("transformers").CLIPTextModel


def _whole(unet: Any) -> Mapping[str, nn.Parameter]:
    unet.requires_grad_(True)
    return dict(unet.named_parameters())


def _adapted(unet: Any, seed: int) -> Mapping[str, nn.Parameter]:
    """Add a LoRA as the script does; return its matrices, in float32, by path and part."""
    from peft import LoraConfig

    unet.requires_grad_(False)
    config = LoraConfig(
        r=learning.RANK,
        lora_alpha=learning.RANK,
        init_lora_weights="gaussian",
        target_modules=list(learning.TARGETS),
    )
    unet.add_adapter(config)
    learnt: dict[str, nn.Parameter] = {}
    for name, parameter in unet.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            part = next(each for each in _PARTS if name.endswith(f".{each}"))
            learnt[f"{name.removesuffix(f'.{part}')}/{_PARTS[part]}"] = parameter
    learning.set_start(learnt, seed)
    return learnt
