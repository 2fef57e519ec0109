"""A toy task for the trainer core: a small net with dropout learns to take noise away."""

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from sd_checkpoint import Checkpoint, save_safetensors
from sd_train import Batch, StepInfo, TrainerConfig, TrainResult, Validation
from sd_train.state import TrainState
from sd_unet import UNet, UNetConfig, backbone_layers


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
        self.layers: Sequence[nn.Module] = [net[0], net[3]]
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


class UNetToy(ToyTask):
    """A small UNet learns along with the words it is told, which are not shared out."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            unet = UNet(
                UNetConfig(
                    sample_size=8,
                    in_channels=3,
                    out_channels=3,
                    block_out_channels=(32, 32),
                    attention_levels=(False, True),
                    layers_per_block=1,
                    cross_attention_dim=16,
                    num_heads=2,
                )
            )
            self.words = nn.Embedding(5, 16)
            for parameter in unet.parameters():
                if not parameter.any():
                    nn.init.normal_(parameter, std=0.1)
        self.unet = unet.to(memory_format=torch.channels_last)
        self.unet.gradient_checkpointing = True
        self.layers = backbone_layers(unet)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"unet": self.unet, "words": self.words}

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        images = batch["images"]
        timesteps = torch.randint(1000, (len(images),), generator=generator)
        noise = torch.randn(images.shape, generator=generator)
        told = self.words(torch.stack([timesteps % 5, timesteps % 3], dim=1))
        output = self.unet(images + noise, timesteps.float(), told)
        return (output.float() - noise).square().mean(), {}

    def validate(self) -> Validation:
        generator = torch.Generator().manual_seed(1)
        return Validation(
            scalars={"loss": float(self.loss({"images": self.source.images}, generator)[0])}
        )

    def export(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        save_safetensors(folder / "unet.safetensors", self.unet.state_dict())


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


def differences(left: Path, right: Path) -> list[str]:
    """Compare weights, averages and optimizer state bit for bit; name what is not the same."""
    names = [sorted(path.name for path in one.glob("*.safetensors")) for one in (left, right)]
    assert names[0], f"{left} is no checkpoint"
    if names[0] != names[1]:
        return [f"files {names}"]
    found = []
    for name in names[0]:
        ours, theirs = Checkpoint.open(left / name), Checkpoint.open(right / name)
        assert len(ours) > 0
        found += [f"{name}: {key}" for key in ours.keys() ^ theirs.keys()]
        same = ours.keys() & theirs.keys()
        found += [f"{name}: {key}" for key in same if not torch.equal(ours[key], theirs[key])]
    if (left / "state.json").read_text() != (right / "state.json").read_text():
        found.append("state.json")
    return sorted(found)


def assert_same_checkpoint(left: Path, right: Path) -> None:
    """Compare weights, averages and optimizer state bit for bit."""
    assert not differences(left, right)


def in_one_part(checkpoint: Path, folder: Path, task: ToyTask | None = None) -> Path:
    """Write a checkpoint, in parts or not, as one process would have."""
    state = TrainState.of(task or ToyTask(), config())
    state.load(checkpoint)
    state.save(folder)
    return folder
