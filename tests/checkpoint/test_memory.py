import json
import subprocess
import sys

import pytest
import torch

from sd_checkpoint import save_safetensors

LAYERS, WIDTH = 24, 2048
NUMEL = LAYERS * WIDTH * WIDTH  # 192 MiB as float16
SCRIPT = """
import json
import multiprocessing
import sys
import torch
from sd_checkpoint import Checkpoint, KeyMap, Rule, load_into

layers, width = int(sys.argv[2]), int(sys.argv[3])

def resident(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name)) * 1024

def peak_of_loading(dtype, names):
    with torch.device("meta"):
        rows = (torch.nn.Linear(width, width, bias=False) for _ in range(layers))
        module = torch.nn.Sequential(*rows)
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    before = resident("VmRSS")
    tensors = Checkpoint.open(sys.argv[1])
    if names == "renamed":
        tensors = KeyMap([Rule("{*}", "{*}")]).apply(tensors)
    load_into(module, tensors, what="a", dtype=getattr(torch, dtype))
    for weight in module.parameters():
        assert (weight.detach().flatten()[::1024] == 2.0**-10).all()  # every page is read
    return resident("VmHWM") - before

cases = [(d, n) for d in ("float16", "bfloat16", "float32") for n in ("plain", "renamed")]
with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as processes:
    peaks = processes.starmap(peak_of_loading, cases, chunksize=1)  # a fresh process each
json.dump({f"{dtype} {names}": peak for (dtype, names), peak in zip(cases, peaks)}, sys.stdout)
"""


@pytest.fixture(scope="module")
def peaks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    path = tmp_path_factory.mktemp("weights") / "a.safetensors"
    weight = torch.full((WIDTH, WIDTH), 2.0**-10, dtype=torch.float16)
    save_safetensors(path, {f"{i}.weight": weight for i in range(LAYERS)})
    command = [sys.executable, "-c", SCRIPT, str(path), str(LAYERS), str(WIDTH)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    path.unlink()
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("names", ["plain", "renamed"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_loading_takes_little_more_memory_than_the_weights(
    peaks: dict[str, int], dtype: str, names: str
) -> None:
    num_bytes = NUMEL * getattr(torch, dtype).itemsize
    assert num_bytes * 0.9 <= peaks[f"{dtype} {names}"] <= num_bytes * 1.15
