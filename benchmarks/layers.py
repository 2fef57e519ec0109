"""Time each path of a layer at SD 1.5's shapes, and so find what `sd_ops` should take where.

    uv run python benchmarks/layers.py                 # float32, two samples at 512 x 512
    uv run python benchmarks/layers.py --dtype bf16
    uv run python benchmarks/layers.py --kept          # with what `freed_memory_kept` does
    uv run python benchmarks/layers.py --threads 1     # where other programs run, too

Each is run alone, in turns over all paths of a shape, and the median told in GFLOP/s of the sums as
they stand: Winograd's may be above what the machine can do. With one thread it is that thread's own
time which counts, so that what else the machine does hardly matters.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sd_ops import attention, freed_memory_kept
from sd_ops.attention import by_rows
from sd_ops.native.library import why_not_native
from sd_ops.native.linear import linear_natively
from sd_ops.native.winograd import convolve_natively
from sd_ops.unfolded import conv_unfolded
from sd_ops.winograd import by_products

# Tokens of both samples, channels in and out.
LINEARS = (
    (8192, 320, 320),
    (8192, 320, 2560),
    (8192, 1280, 320),
    (2048, 640, 640),
    (2048, 640, 5120),
    (2048, 2560, 640),
    (512, 1280, 1280),
    (512, 1280, 10240),
    (512, 5120, 1280),
)
# Channels in and out, pixels of a side.
CONVOLUTIONS = (
    (320, 320, 64),
    (960, 320, 64),
    (640, 640, 32),
    (1280, 1280, 32),
    (1280, 1280, 16),
    (1280, 1280, 8),
)
# Queries, keys, width of one of eight heads.
ATTENTIONS = ((4096, 4096, 40), (1024, 1024, 80), (256, 256, 160), (4096, 77, 40), (1024, 77, 80))
BATCH, HEADS = 2, 8
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Paths = dict[str, Callable[[], Tensor]]


def linear_paths(tokens: int, num_in: int, num_out: int, dtype: torch.dtype) -> Paths:
    x, weight, bias = (
        torch.randn(shape).to(dtype)
        for shape in ((BATCH, tokens // BATCH, num_in), (num_out, num_in), (num_out,))
    )
    picture = x.reshape(1, 1, tokens, num_in).permute(0, 3, 1, 2)
    ours: Paths = {"native": lambda: linear_natively(x, weight, bias)}
    return {
        **({} if why_not_native(dtype) else ours),
        "linear": lambda: F.linear(x, weight, bias),
        "1x1 convolution": lambda: F.conv2d(picture, weight[:, :, None, None], bias),
    }


def convolution_paths(num_in: int, num_out: int, side: int, dtype: torch.dtype) -> Paths:
    x, weight = torch.randn(BATCH, num_in, side, side), torch.randn(num_out, num_in, 3, 3)
    x, weight, bias = x.to(dtype), weight.to(dtype), torch.randn(num_out).to(dtype)
    last, kernel = (one.contiguous(memory_format=torch.channels_last) for one in (x, weight))
    paths: Paths = {
        "convolution": lambda: F.conv2d(x, weight, bias, padding=1),
        "picture channels_last": lambda: F.conv2d(last, weight, bias, padding=1),
        "kernel too": lambda: F.conv2d(last, kernel, bias, padding=1),
        "unfolded": lambda: conv_unfolded(last, kernel, bias, (1, 1), 1),
    }
    if dtype == torch.float32:
        paths["Winograd"] = lambda: by_products(last, kernel, bias, 1)
    if not why_not_native(dtype):
        paths["native"] = lambda: convolve_natively(last, kernel, bias, 1)
    return paths


def attention_paths(queries: int, keys: int, width: int, dtype: torch.dtype) -> Paths:
    q, k, v = (
        torch.randn(BATCH, number, HEADS, width).to(dtype).transpose(1, 2)
        for number in (queries, keys, keys)
    )
    ours: Paths = {"native": lambda: attention(q, k, v, backend="native")}
    return {
        **({} if why_not_native(dtype) else ours),
        "sdpa": lambda: attention(q, k, v, backend="sdpa"),
        "by rows": lambda: by_rows(q, k, v),
        "chunked": lambda: attention(q, k, v, backend="chunked"),
    }


def seconds(paths: Paths, rounds: int) -> dict[str, float]:
    """Return the median of each path, all taking turns."""
    found: dict[str, list[float]] = {name: [] for name in paths}
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    for number in range(rounds + 1):
        for name, path in paths.items():
            started = clock()
            path()
            if number:  # the first is to warm up
                found[name].append(clock() - started)
    return {name: statistics.median(times) for name, times in found.items()}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--kept", action="store_true", help="keep freed memory, as a run of steps does"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with freed_memory_kept() if arguments.kept else nullcontext():
        tell(DTYPES[arguments.dtype], arguments)


def tell(dtype: torch.dtype, arguments: argparse.Namespace) -> None:
    for title, shapes, make, flop in (
        ("linear", LINEARS, linear_paths, lambda n, i, o: 2 * n * i * o),
        (
            "3x3 convolution",
            CONVOLUTIONS,
            convolution_paths,
            lambda i, o, s: 2 * 9 * BATCH * i * o * s * s,
        ),
        (
            "attention",
            ATTENTIONS,
            attention_paths,
            lambda q, k, d: 4 * BATCH * HEADS * q * k * d,
        ),
    ):
        table: Table | None = None
        for shape in shapes:
            found = seconds(make(*shape, dtype), arguments.rounds)
            if table is None:
                table = Table(f"{title}, {arguments.dtype}, GFLOP/s", *found)
            rates = (f"{flop(*shape) / one / 1e9:.0f}" for one in found.values())
            table.add_row(" x ".join(map(str, shape)), *rates)
        Console(width=110).print(table)


if __name__ == "__main__":
    main()
