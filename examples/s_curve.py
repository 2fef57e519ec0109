"""Learn to draw a two-dimensional S with sd_sampler, torch and matplotlib, and nothing else.

    python examples/s_curve.py --out s_curve.png

A small network learns which way the data lies from any noisy point; DDPM then walks pure noise
back to the S. The picture shows noise coming (top) and going (bottom).
"""

import argparse
import copy
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from sd_sampler import NoiseSchedule, NoiseSource, V, antithetic_timesteps, plan

SCHEDULE = NoiseSchedule.cosine()
SHOWN = (0, 100, 250, 500, 999)
NUM_POINTS = 2000
NUM_DRAW_STEPS = 100


def s_curve(num_points: int, generator: torch.Generator) -> Tensor:
    """Draw points (N, 2) near an S of width 2 and height 4, scaled to a deviation of about 1."""
    turn = 3 * math.pi * (torch.rand(num_points, generator=generator) - 0.5)
    points = torch.stack([turn.sin(), turn.sign() * (turn.cos() - 1)], dim=1)
    points = points + 0.04 * torch.randn(points.shape, generator=generator)
    return points / torch.tensor([0.71, 1.22])


class Network(nn.Module):
    """Predict v (B, 2) for points (B, 2) at timesteps (B,)."""

    frequencies: Tensor

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(-1, -3, 16), persistent=False)
        layers: list[nn.Module] = [nn.Linear(2 + 32, width), nn.SiLU()]
        for _ in range(2):
            layers += [nn.Linear(width, width), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 2))

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """Return v."""
        angles = timesteps[:, None] * self.frequencies
        v: Tensor = self.layers(torch.cat([x, angles.sin(), angles.cos()], dim=1))
        return v


def train(num_steps: int, seed: int, batch_size: int = 512) -> Network:
    """Train a network and return the exponential moving average of its weights."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = Network()
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for step in range(num_steps):
        x0 = s_curve(batch_size, generator)
        noise = torch.randn(x0.shape, generator=generator)
        timesteps = antithetic_timesteps(batch_size, SCHEDULE.num_timesteps, generator)
        sigma = SCHEDULE.sigma_of(timesteps).float()
        output = network(SCHEDULE.add_noise(x0, noise, timesteps), timesteps.float())
        loss = nn.functional.mse_loss(output, V.target(x0, noise, sigma))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        annealing.step()
        decay = min(0.999, (1 + step) / (10 + step))
        for kept, new in zip(average.parameters(), network.parameters(), strict=True):
            kept.data.lerp_(new.data, 1 - decay)
        if step % 500 == 0 or step == num_steps - 1:
            print(f"step {step:5d}  loss {loss.item():.4f}")
    return average


@torch.no_grad()
def sample(network: Network, seed: int) -> list[Tensor]:
    """Draw points (N, 2) by DDPM and return them at each of `SHOWN`, from the last to the first."""
    made = plan("ddpm", "trailing", SCHEDULE, NUM_DRAW_STEPS)
    noise = NoiseSource(range(seed, seed + NUM_POINTS), (2,))
    # From x0 + sigma noise, in which samplers work, to the scale of the forward process.
    scales = (1 + made.sigmas**2).rsqrt().tolist()
    states = [made.initial(noise) * scales[0]]

    def keep(step: int, _sigma: float, x: Tensor, _x0: Tensor) -> None:
        states.append(x * scales[step + 1])

    made.run(made.denoiser(network, V), noise, on_step=keep)
    wanted = [math.ceil((999 - t) / 999 * NUM_DRAW_STEPS) for t in reversed(SHOWN)]
    return [states[i] for i in wanted]


def draw(forward: list[Tensor], backward: list[Tensor], out: Path) -> None:
    """Write both processes, side by side, to a PNG."""
    figure = Figure(figsize=(2.6 * len(SHOWN), 5.6), layout="constrained")
    rows = figure.subplots(2, len(SHOWN), sharex=True, sharey=True, squeeze=False)
    processes = (
        ("forward", SHOWN, forward, "tab:blue"),
        ("reverse", SHOWN[::-1], backward, "tab:orange"),
    )
    for row, (process, times, states, colour) in zip(rows, processes, strict=True):
        for axes, t, points in zip(row, times, states, strict=True):
            axes.scatter(points[:, 0], points[:, 1], s=2, alpha=0.5, color=colour)
            axes.set(title=f"{process}, t = {t}", xlim=(-3.5, 3.5), ylim=(-3.5, 3.5))
            axes.set_aspect("equal")
    figure.savefig(out, dpi=100)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, sample and draw."""
    parser = argparse.ArgumentParser(description="Learn a 2-D S-curve by diffusion and plot it.")
    parser.add_argument("--steps", type=int, default=6000, help="training steps")
    parser.add_argument("--out", type=Path, default=Path("s_curve.png"), help="PNG to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    backward = sample(train(options.steps, options.seed), options.seed)
    generator = torch.Generator().manual_seed(options.seed + 1)
    data = s_curve(NUM_POINTS, generator)
    noise = torch.randn(data.shape, generator=generator)
    times = [torch.full((NUM_POINTS,), t) for t in SHOWN]
    forward = [data] + [SCHEDULE.add_noise(data, noise, t) for t in times[1:]]
    draw(forward, backward, options.out)
    apart = torch.cdist(backward[-1], s_curve(10_000, generator)).amin(dim=1)
    print(f"drawn points lie {apart.mean():.3f} from the S on average; wrote {options.out}")


if __name__ == "__main__":
    main()
