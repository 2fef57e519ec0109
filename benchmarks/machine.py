"""What a result was measured on: facts that matter to it, and none that name the machine."""

import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.case import Case

_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "asimd",
    "bf16",
    "sve",
)
_PACKAGES = ("torch", "diffusers", "transformers", "openvino", "triton")


def machine_facts(case: Case) -> dict[str, Any]:
    """Return processor, memory, GPU and versions as a JSON object."""
    cpu = _cpu()
    facts: dict[str, Any] = {
        "processor": cpu.get("model name", platform.machine()),
        "cores": _usable_cores(),
        "flags": [flag for flag in _FLAGS if flag in _flags(cpu)],
        "memory_gb": _memory_gb(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        # Without it every import compiles anew, and takes three times as long.
        "byte_code_cached": not sys.dont_write_bytecode,
        "versions": _versions(),
    }
    if case.on_cuda:
        import torch

        facts["gpu"] = torch.cuda.get_device_name(case.device)
        facts["cuda"] = torch.version.cuda
    return facts


def _cpu() -> Mapping[str, str]:
    """Return the first processor of those that the system lists."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _flags(cpu: Mapping[str, str]) -> list[str]:
    return cpu.get("flags", cpu.get("Features", "")).split()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gb() -> float | None:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    return round(size / 1e9, 1)


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
