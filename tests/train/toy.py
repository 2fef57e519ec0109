"""A toy task for the trainer core: a small net with dropout learns to take noise away."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from sd_checkpoint import save_safetensors
from sd_train import Batch, StepInfo, TrainResult, Validation


class ToySource:
    def __init__(self, count: int = 23) -> None:
        self.images = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        self.seen: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        self.seen += indices
        shift = int(torch.randint(8, (), generator=generator))
        return {"images": self.images[list(indices)].roll(shift, -1)}


class ToyTask:
    def __init__(self, seed: int = 0, scale: float = 1.0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Dropout(0.2), nn.Conv2d(8, 3, 1)
            )
        self.net = net.to(memory_format=torch.channels_last)
        self.source = ToySource()
        self.scale = scale
        self.validated_in_training_mode: list[bool] = []

    def modules(self) -> Mapping[str, nn.Module]:
        return {"net": self.net}

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        images = batch["images"]
        noise = torch.randn(images.shape, generator=generator)
        error = (self.net(images + noise) - images).square().mean() * self.scale
        return error, {"error": error.detach()}

    def validate(self) -> Validation:
        self.validated_in_training_mode.append(self.net.training)
        torch.randn(100)
        output = self.net(self.source.images)
        image = (output[0] * 0).to(torch.uint8)
        return Validation(scalars={"mean": float(output.mean())}, images={"first": image})

    def export(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        save_safetensors(folder / "net.safetensors", self.net.state_dict())


class Recorder:
    """Keeps what it hears; raises a signal after `stop_at` steps."""

    def __init__(self, stop_at: int = 0, signal_number: int = 0) -> None:
        self.stop_at, self.signal_number = stop_at, signal_number
        self.steps: list[StepInfo] = []
        self.messages: list[str] = []
        self.result: TrainResult | None = None

    def started(self, step: int, num_steps: int) -> None:
        self.messages.append(f"started {step} {num_steps}")

    def step(self, info: StepInfo) -> None:
        import signal

        self.steps.append(info)
        if info.step == self.stop_at:
            signal.raise_signal(self.signal_number or signal.SIGINT)

    def message(self, text: str) -> None:
        self.messages.append(text)

    def finished(self, result: TrainResult) -> None:
        self.result = result
