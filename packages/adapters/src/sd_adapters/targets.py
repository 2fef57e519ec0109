"""Which modules of a model an adapter can take hold of, and under which names."""

from collections.abc import Iterable

from torch import nn

from sd_adapters.adapter import AdapterError

Target = nn.Linear | nn.Conv2d


def flat_name(prefix: str, path: str) -> str:
    """Return kohya's name of a module: its prefix and path with every dot an underscore."""
    return f"{prefix}_{path.replace('.', '_')}"


def targets_by_name(model: nn.Module, prefix: str) -> dict[str, Target]:
    """Index every linear and convolution by its flat name, which cannot be turned back."""
    found: dict[str, Target] = {}
    for path, module in model.named_modules():
        if isinstance(module, Target):
            name = flat_name(prefix, path)
            assert name not in found, name
            found[name] = module
    return found


def paths_ending_in(model: nn.Module, suffixes: Iterable[str]) -> list[str]:
    """Return the paths of the linears and convolutions whose path ends in one of the suffixes.

    Raises ``AdapterError`` listing the suffixes in which none ends.
    """
    suffixes = tuple(suffixes)
    targets = [path for path, module in model.named_modules() if isinstance(module, Target)]
    idle = [s for s in suffixes if not any(_ends_in(path, s) for path in targets)]
    if idle or not suffixes:
        raise AdapterError("no linear or convolution of the model has a path ending in", idle)
    return [path for path in targets if any(_ends_in(path, suffix) for suffix in suffixes)]


def _ends_in(path: str, suffix: str) -> bool:
    return path == suffix or path.endswith(f".{suffix}")
