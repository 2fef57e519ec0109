"""C of this package as libraries for this processor: compiled once, and kept in the user's cache.

A source is compiled with `-march=native` by the C compiler that `CC` names, or `cc`, `gcc` or
`clang`, in one to three seconds. The library lies in `$XDG_CACHE_HOME/sd-ops` (`~/.cache/sd-ops`)
under a name that stands for the source, the processor and the type, and for its own bytes; nothing
else is written there, and it may be deleted. `SD_OPS_NATIVE=0` in the environment does without.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from sd_ops.limits import processor

__all__ = ["PRODUCTS", "kernels", "library", "place", "products_to_learn", "why_not_native"]

PRODUCTS = ("tiles", "halves", "pairs", "floats")

_HERE = Path(__file__).parent
_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-O3", "-march=native", "-fPIC", "-fopenmp", "-ffp-contract=fast", "-w")
_PATIENCE = 120  # seconds


def why_not_native(dtype: torch.dtype) -> str | None:
    """Tell why kernels of ``dtype`` are not to be had here, None where they should be.

    Nothing is compiled for the answer.
    """
    if reason := _why_not_here(dtype):
        return reason
    try:
        kinds = _best_products(dtype)
        stems = (_stem(_source("attention", kind), _defines(dtype, kind)) for kind in kinds)
        if not any(any(_store().glob(f"{stem}-*.so")) for stem in stems):
            _compiler()
    except (OSError, RuntimeError) as error:
        return _cannot(str(error))
    return None


def kernels(name: str, dtype: torch.dtype, *, products: str | None = None) -> ctypes.CDLL:
    """Return the kernels of ``name``.c for a type, where there are any."""
    found = library(name, dtype, products=products)
    assert isinstance(found, ctypes.CDLL)
    return found


def products_to_learn(dtype: torch.dtype) -> str:
    """Return what attention of a type is multiplied by where gradients are wanted."""
    return _best_products(dtype)[-1]  # gradients are too far apart for float16


def place(x: Tensor | None) -> ctypes.c_void_p:
    """Return where a tensor's numbers lie, as kernels take it; null for none."""
    return ctypes.c_void_p(None if x is None else x.data_ptr())


@cache
def library(name: str, dtype: torch.dtype, *, products: str | None = None) -> ctypes.CDLL | str:
    """Return the kernels of ``name``.c for a type, or a line that says why there are none.

    The first call on a machine compiles them. They multiply as this processor does best and the
    compiler knows, or by the ``products`` of bfloat16 that are named, one of `PRODUCTS`.
    """
    if reason := _why_not_here(dtype):
        return reason
    found: ctypes.CDLL | str = ""
    for kind in (products,) if products else _best_products(dtype):
        found = _library(_source(name, kind), _defines(dtype, kind))
        if not isinstance(found, str):
            break
    return found


def _source(name: str, kind: str) -> str:
    """Return which source has a kind of products: one of its own, or the one of them all."""
    own = f"{name}_{kind}"
    return own if (_HERE / f"{own}.c").exists() else name


def _library(name: str, defines: tuple[str, ...]) -> ctypes.CDLL | str:
    try:
        stem = _stem(name, defines)
        path = _kept(stem) or _compiled(name, stem, defines)
        loaded = ctypes.CDLL(str(path))
        # The system wants to be told, once a process, that tiles are to be used.
        return loaded if loaded.ready() else "the system does not let this process multiply tiles"
    except (OSError, RuntimeError, AttributeError, subprocess.SubprocessError) as error:
        return _cannot(getattr(error, "stderr", None) or str(error))


def _defines(dtype: torch.dtype, products: str) -> tuple[str, ...]:
    half = dtype == torch.bfloat16
    kinds = (kind for kind in PRODUCTS if kind != "floats")
    return (
        f"-DHALF={int(half)}",
        *(f"-D{kind.upper()}={int(half and kind == products)}" for kind in kinds),
    )


def _stem(name: str, defines: tuple[str, ...]) -> str:
    """Return what the name of a library begins with: what it is made of, and for."""
    texts = [file.read_bytes() for file in (_HERE / f"{name}.c", *sorted(_HERE.glob("*.h")))]
    return f"{name}-{_digest(*texts, repr((_FLAGS, defines, _processor())).encode())}"


def _best_products(dtype: torch.dtype) -> tuple[str, ...]:
    """Return what a type is best multiplied by, and what serves where the compiler is too old."""
    if dtype == torch.float32:
        return ("floats",)
    # A compiler that knows no tiles shall fail where the processor has them: torch's own use them.
    if "amx_bf16" in _processor():
        return ("tiles",)
    return ("halves", "floats") if processor() == "avx512_fp16" else ("pairs",)


def _cannot(said: str) -> str:
    lines = said.strip().splitlines() or ["no reason given"]
    return f"they cannot be built or loaded ({lines[0]:.200})"


def _why_not_here(dtype: torch.dtype) -> str | None:
    if os.environ.get("SD_OPS_NATIVE") == "0":
        return "SD_OPS_NATIVE is 0"
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"they are for Linux on x86-64, not {platform.system()} on {platform.machine()}"
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return "the processor lacks AVX-512"
    if dtype not in (torch.float32, torch.bfloat16):
        return f"they are for float32 and bfloat16, not {dtype}"
    if dtype == torch.bfloat16 and "avx512_bf16" not in _processor():
        return "the processor does not multiply bfloat16"
    return None


def _kept(stem: str) -> Path | None:
    """Return what was compiled before, if it is whole: loading a damaged library ends a process."""
    for path in _store().glob(f"{stem}-*.so"):
        if path.stem == f"{stem}-{_digest(path.read_bytes())}":
            return path
        path.unlink(missing_ok=True)
    return None


def _compiled(name: str, stem: str, defines: tuple[str, ...]) -> Path:
    """Compile ``name``.c and return the library, which is there whole or not at all."""
    compiler, store = _compiler(), _store()
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store, prefix=".building-") as room:
        parts = Path(room) / "kernels.o", Path(room) / "kernels.so"
        # Not linked with a library of threads: torch's own is in the process, and two would be at
        # odds over the processor.
        for command in (
            (*_FLAGS, *defines, "-c", str(_HERE / f"{name}.c"), "-o", str(parts[0])),
            ("-shared", str(parts[0]), "-o", str(parts[1]), "-lm"),
        ):
            subprocess.run(
                (compiler, *command), check=True, capture_output=True, text=True, timeout=_PATIENCE
            )
        return parts[1].replace(store / f"{stem}-{_digest(parts[1].read_bytes())}.so")


def _compiler() -> str:
    """Return the C compiler; raises OSError where there is none."""
    named = os.environ.get("CC")
    found = next(filter(None, map(shutil.which, (named,) if named else _COMPILERS)), None)
    if found is None:
        raise OSError(f"no C compiler: {named or ', '.join(_COMPILERS)} not found")
    return found


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


@cache
def _processor() -> str:
    """Return the line of Linux that lists what the processor can do."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.startswith("flags")), "")


def _store() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sd-ops"
