"""Time the loading of a model, ours against diffusers', each in a fresh process, and its memory.

    uv run python benchmarks/load.py                     # SD 1.5's size, random weights, fp16 files
    uv run python benchmarks/load.py --dtype fp32        # the same files, cast while they load
    uv run python benchmarks/load.py --model FOLDER

The two take turns (A B B A ...), files warm in the page cache. Seconds are from after the imports
to a model whose every page of weights has been read once; memory is the peak resident set above
what the imports took, over the bytes of the weights in the target type. Prints medians and ratio.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

# What each process runs. Every weight is read, for a mapped file costs nothing until it is.
_COMMON = """
import json, sys, time, torch
folder, dtype = sys.argv[1], getattr(torch, sys.argv[2])
def resident(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024
def report(modules, started, before):
    tensors = [t for m in modules for t in m.state_dict().values()]
    total = sum(float(t.reshape(-1)[:: 1024].float().sum()) for t in tensors)
    seconds = time.perf_counter() - started
    assert total == total
    size = sum(t.nbytes for t in tensors)
    print(json.dumps({"seconds": seconds, "memory": (resident("VmHWM") - before) / size}))
"""
_OURS = (
    _COMMON
    + """
import sd_pipeline
from pathlib import Path
before, started = resident("VmRSS"), time.perf_counter()
parts = sd_pipeline.load_model(Path(folder), dtype=dtype)
report([parts.unet, parts.vae, parts.text_encoder], started, before)
"""
)
_THEIRS = (
    _COMMON
    + """
import diffusers, transformers
from transformers import CLIPTextModel
from diffusers import StableDiffusionPipeline
before, started = resident("VmRSS"), time.perf_counter()
pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype)
report([pipe.unet, pipe.vae, pipe.text_encoder], started, before)
"""
)
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def measure(program: str, folder: Path, dtype: str) -> dict[str, float]:
    command = [sys.executable, "-c", program, str(folder), _DTYPES[dtype]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def random_model(folder: Path) -> None:
    """Write a model of SD 1.5's size with random weights as fp16."""
    import sd_textenc
    import sd_unet
    import sd_vae
    from sd_pipeline import Parts, Scheduler, save_model
    from sd_sampler import DiffusionConfig

    parts = Parts(
        unet=sd_unet.UNet(sd_unet.sd15()),
        vae=sd_vae.AutoencoderKL(sd_vae.sd15()),
        text_encoder=sd_textenc.CLIPTextEncoder(sd_textenc.vit_l14(), sd_textenc.clip_tokenizer()),
        scheduler=Scheduler(diffusion=DiffusionConfig()),
    )
    save_model(folder, parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a folder; else one of SD 1.5's size is made")
    parser.add_argument("--dtype", choices=tuple(_DTYPES), default="fp16")
    parser.add_argument("--rounds", type=int, default=3, help="of A B B A")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.model or Path(temporary) / "model"
        if arguments.model is None:
            random_model(folder)
        programs = {"ours": _OURS, "diffusers": _THEIRS}
        found: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
        for program in programs.values():
            measure(program, folder, arguments.dtype)  # warms the page cache
        for _ in range(arguments.rounds):
            for name in ("ours", "diffusers", "diffusers", "ours"):
                found[name].append(measure(programs[name], folder, arguments.dtype))
    table = Table("", "seconds, median", "seconds, all", "peak memory / weights")
    medians = {}
    for name, results in found.items():
        seconds = [result["seconds"] for result in results]
        medians[name] = statistics.median(seconds)
        memory = max(result["memory"] for result in results)
        listed = " ".join(f"{one:.2f}" for one in sorted(seconds))
        table.add_row(name, f"{medians[name]:.2f}", listed, f"{memory:.2f}")
    Console(width=120).print(table)
    print(f"ours / diffusers: {medians['ours'] / medians['diffusers']:.2f}")


if __name__ == "__main__":
    main()
