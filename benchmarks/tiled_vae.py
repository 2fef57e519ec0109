"""Decode a large picture with SD 1.5's autoencoder in bands, and measure memory, time and error.

    uv run python benchmarks/tiled_vae.py                     # 2048 x 2048 in bands
    uv run python benchmarks/tiled_vae.py --untiled           # whole as well; takes some 18 GB
    uv run python benchmarks/tiled_vae.py --size 4096 --memory 1024 --folder /scratch

First both ways at `--compare` (1024) pixels, where both fit, in turns (A B B A), for the ratio of
their times and the largest difference of their pictures; then `--size` in bands. Weights are random
and float32 on the CPU, and every decoding is a process of its own. Memory is the peak resident set
above what was there before it, with weights and latents loaded and a picture of 64 pixels
decoded, so it counts the result, which is float32 here, 12 bytes a pixel. Needs 2 KiB of disk a
pixel in `--folder`: 8.6 GB for 2048 x 2048.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

# What each process runs. Bands go into the result one by one, as `decode_in_bands` does it.
_PROGRAM = """
import json, sys, time
from pathlib import Path
import torch
from sd_ops import use_fast_paths
from sd_vae import AutoencoderKL, MemoryBudget, decode_in_bands, sd15
way, size, memory, folder, result = sys.argv[1], *map(int, sys.argv[2:4]), *sys.argv[4:6]
def resident(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024
torch.manual_seed(0)
vae = AutoencoderKL(sd15()).eval().requires_grad_(False)
use_fast_paths(vae)  # as the pipeline does
z = torch.randn(1, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(1))
budget = MemoryBudget(memory=memory, folder=Path(folder))
# Not so little that the plain way is taken, and not so much that it leaves memory behind.
few = MemoryBudget(memory=8 * 2**20, folder=Path(folder))
def decode(z, budget):
    return vae.decode(z) if way == "whole" else decode_in_bands(vae, z, budget=budget)
with torch.inference_mode():
    decode(z[..., :8, :8], few)
    open("/proc/self/clear_refs", "w").write("5")  # the peak so far is forgotten
    before, started = resident("VmRSS"), time.perf_counter()
    picture = decode(z, budget)
    seconds = time.perf_counter() - started
peak = resident("VmHWM") - before
torch.save(picture, result)
print(json.dumps({"seconds": seconds, "memory": peak}))
"""
_WAYS = ("whole", "bands")


def decode(way: str, size: int, arguments: argparse.Namespace, result: Path) -> dict[str, float]:
    command = [sys.executable, "-c", _PROGRAM, way, str(size), str(arguments.memory * 2**20)]
    command += [str(arguments.folder), str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr or f"{way} at {size} ended with {done.returncode}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(size: int, rounds: int, arguments: argparse.Namespace, table: Table) -> str:
    """Decode both ways in turns; return the ratio of the times and the difference in words."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in _WAYS}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        results = {way: Path(temporary) / f"{way}.pt" for way in _WAYS}
        for _ in range(rounds):
            for way in ("whole", "bands", "bands", "whole"):
                found[way].append(decode(way, size, arguments, results[way]))
        whole, bands = (torch.load(results[way]) for way in _WAYS)
    for way in _WAYS:
        add_row(table, way, size, found[way])
    medians = {way: statistics.median(one["seconds"] for one in found[way]) for way in _WAYS}
    return (
        f"at {size}: bands / whole {medians['bands'] / medians['whole']:.2f} of the time; "
        f"largest difference {(bands - whole).abs().max():.1e} where pixels "
        f"reach {whole.abs().max():.2f}"
    )


def add_row(table: Table, way: str, size: int, found: list[dict[str, float]]) -> None:
    seconds = sorted(one["seconds"] for one in found)
    table.add_row(
        way,
        f"{size} x {size}",
        f"{statistics.median(seconds):.1f}",
        " ".join(f"{one:.1f}" for one in seconds),
        f"{max(one['memory'] for one in found) / 1e6:.0f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=2048, help="pixels a side, a multiple of 8")
    parser.add_argument("--untiled", action="store_true", help="compare at --size as well")
    parser.add_argument("--compare", type=int, default=1024, help="pixels a side; 0 for not at all")
    parser.add_argument("--rounds", type=int, default=1, help="of A B B A")
    parser.add_argument("--memory", type=int, default=768, help="the budget in MiB")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    table = Table("", "picture", "seconds, median", "seconds, all", "peak MB above the weights")
    said = []
    if arguments.compare:
        said.append(compare(arguments.compare, arguments.rounds, arguments, table))
    if arguments.untiled:
        said.append(compare(arguments.size, arguments.rounds, arguments, table))
    else:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
            found = decode("bands", arguments.size, arguments, Path(temporary) / "bands.pt")
        add_row(table, "bands", arguments.size, [found])
    Console(width=120).print(table)
    for line in said:
        print(line)


if __name__ == "__main__":
    main()
