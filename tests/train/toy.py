"""A toy task for the trainer core: a small net with dropout learns to take noise away."""

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from sd_checkpoint import Checkpoint, save_safetensors
from sd_train import Batch, StepInfo, TrainerConfig, TrainResult, Validation


class ToySource:
    def __init__(self, count: int, shift: bool) -> None:
        self.shift = shift
        self.images = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        self.seen: list[int] = []
        self.groups: list[list[int]] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        self.seen += indices
        shift = int(torch.randint(8, (), generator=generator)) if self.shift else 0
        return {"images": self.images[list(indices)].roll(shift, -1)}


class ToyTask:
    """`random=False` has no noise, dropout or shifts; calls in `poison` have a NaN loss."""

    def __init__(self, *, random: bool = True, poison: Sequence[int] = ()) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = nn.Sequential(
                nn.Conv2d(3, 32, 3, padding=1),
                nn.SiLU(),
                nn.Dropout(0.2 if random else 0.0),
                nn.Conv2d(32, 32, 1),
                nn.Conv2d(32, 3, 1),
            )
        self.net = net.to(memory_format=torch.channels_last)
        self.source = ToySource(23, shift=random)
        self.random = random
        self.poison = poison
        self.calls = 0
        self.modes: list[bool] = []

    def modules(self) -> Mapping[str, nn.Module]:
        return {"net": self.net}

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        images = batch["images"]
        noise = torch.randn(images.shape, generator=generator) * self.random
        error = (self.net(images + noise) - images).square().mean()
        if self.calls in self.poison:
            error = error * torch.nan
        self.calls += 1
        return error, {"error": error.detach()}

    def validate(self) -> Validation:
        self.modes.append(self.net.training)
        torch.randn(100)
        output = self.net(self.source.images)
        image = (output[0] * 0).to(torch.uint8)
        return Validation(scalars={"mean": float(output.mean())}, images={"first": image})

    def export(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        save_safetensors(folder / "net.safetensors", self.net.state_dict())


class Recorder:
    """Keeps what it hears; raises a signal after `stop_at` steps."""

    def __init__(self, stop_at: int = 0, signal_number: int = signal.SIGINT) -> None:
        self.stop_at, self.signal_number = stop_at, signal_number
        self.steps: list[StepInfo] = []
        self.messages: list[str] = []
        self.result: TrainResult | None = None

    def started(self, step: int, num_steps: int) -> None:
        self.messages.append(f"started {step} {num_steps}")

    def step(self, info: StepInfo) -> None:
        self.steps.append(info)
        if info.step == self.stop_at:
            signal.raise_signal(self.signal_number)

    def message(self, text: str) -> None:
        self.messages.append(text)

    def finished(self, result: TrainResult) -> None:
        self.result = result


def config(**settings: object) -> TrainerConfig:
    """A short run that uses every feature of the loop, with `settings` replaced."""
    values: dict[str, object] = {
        "steps": 8,
        "batch_size": 4,
        "accumulate": 2,
        "learning_rate": 1e-2,
        "lr_schedule": "cosine",
        "warmup_steps": 2,
        "validate_every": 3,
        "save_every": 2,
        "log_every": 2,
        "device": "cpu",
        "tensorboard": False,
    }
    return TrainerConfig.model_validate(values | settings)


def assert_same_checkpoint(left: Path, right: Path) -> None:
    """Compare weights, averages and optimizer state bit for bit."""
    for name in ("weights", "ema", "optimizer"):
        ours = Checkpoint.open(left / f"{name}.safetensors")
        theirs = Checkpoint.open(right / f"{name}.safetensors")
        assert ours.keys() == theirs.keys()
        assert len(ours) > 0
        for key in ours:
            assert torch.equal(ours[key], theirs[key]), f"{name}: {key}"
    assert (left / "state.json").read_text() == (right / "state.json").read_text()
