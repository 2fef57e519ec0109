"""The weights of one part of a model's folder, as diffusers and transformers lay them out."""

import re
from dataclasses import dataclass
from pathlib import Path

from sd_checkpoint.checkpoint import Checkpoint
from sd_checkpoint.entry import Entry
from sd_checkpoint.errors import CheckpointError, name_keys
from sd_checkpoint.json_files import load_json

__all__ = ["has_weights", "open_weights"]

_VARIANT = r"\.([A-Za-z0-9_]+)"


@dataclass(frozen=True, slots=True)
class _Form:
    """A spelling of the names: the weights' stem and suffix; stem "model" is older in pickles."""

    stem: str
    suffix: str

    def names(self, variant: str | None) -> tuple[str, ...]:
        """Name the files that may hold the weights, or say which files do."""
        one = f"{self.stem}.{variant}" if variant else self.stem
        older = f".{variant}" if variant else ""
        names = (f"{one}{self.suffix}", f"{one}{self.suffix}.index.json")
        return (*names, f"{self.stem}{self.suffix}.index{older}.json")

    def variant_of(self, name: str) -> str | None:
        """Return the variant that a file of this form has."""
        stem, suffix = re.escape(self.stem), re.escape(self.suffix)
        match = re.fullmatch(
            rf"{stem}{_VARIANT}{suffix}(?:\.index\.json)?|{stem}{suffix}\.index{_VARIANT}\.json",
            name,
        )
        return (match[1] or match[2]) if match else None


def open_weights(folder: Path, stem: str, variant: str | None = None) -> Checkpoint:
    """Open the weights `stem` ("diffusion_pytorch_model", "model") in `folder`, whole or in shards.

    safetensors are taken before pickles. `variant` ("fp16") is the part before the suffix. Without
    one, the files without one are taken, or else those of the only variant there is.
    Raises `CheckpointError` when there are none, listing the variants there are, and when shards
    are missing, lie outside the folder, or hold other keys than their index says.
    """
    forms = _forms(stem)
    path = _find(folder, forms, variant)
    if path is None and variant is None:
        variants = _variants(folder, forms)
        if len(variants) == 1:
            path = _find(folder, forms, variants[0])
    if path is None:
        raise _not_there(folder, forms, variant)
    if path.suffix == ".json":
        return _open_shards(path)
    return Checkpoint.open(path)


def has_weights(folder: Path, stem: str, variant: str) -> bool:
    """Tell whether `folder` holds the weights `stem` in this very variant."""
    return _find(folder, _forms(stem), variant) is not None


def _forms(stem: str) -> tuple[_Form, ...]:
    older = f"pytorch_{stem}" if stem == "model" else stem
    return _Form(stem, ".safetensors"), _Form(stem, ".bin"), _Form(older, ".bin")


def _find(folder: Path, forms: tuple[_Form, ...], variant: str | None) -> Path | None:
    for form in forms:
        for name in form.names(variant):
            if (folder / name).is_file():
                return folder / name
    return None


def _variants(folder: Path, forms: tuple[_Form, ...]) -> list[str]:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = {form.variant_of(name) for form in forms for name in names}
    return sorted(variant for variant in found if variant)


def _not_there(folder: Path, forms: tuple[_Form, ...], variant: str | None) -> CheckpointError:
    if not folder.is_dir():
        return CheckpointError(f"{folder} is no folder; check the path")
    wanted = forms[0].names(variant)[0]
    others = _variants(folder, forms)
    if variant and _find(folder, forms, None):
        others = ["none", *others]
    mend = f"variants there: {', '.join(others)}" if others else "check the path"
    return CheckpointError(f"{folder} has no {wanted} or other weights of that name; {mend}")


def _open_shards(index: Path) -> Checkpoint:
    weight_map = load_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map; fetch it again")
    suffix = ".safetensors" if ".safetensors" in index.name else ".bin"
    keys_of: dict[str, set[str]] = {}
    for key, name in weight_map.items():
        if not isinstance(name, str) or not name.endswith(suffix):
            raise CheckpointError(f"{index} says that {key} is in {name!r}, no {suffix} file")
        keys_of.setdefault(name, set()).add(key)
    entries: dict[str, Entry] = {}
    metadata: dict[str, str] = {}
    for name, keys in keys_of.items():
        shard = Checkpoint.open(_inside(index, name))
        _require_listed(index, shard, keys)
        entries |= shard.entries
        metadata |= shard.metadata
    return Checkpoint(index, {key: entries[key] for key in weight_map}, metadata)


def _require_listed(index: Path, shard: Checkpoint, keys: set[str]) -> None:
    wrong = keys ^ set(shard)
    if wrong:
        raise CheckpointError(
            f"{index} and {shard.path.name} disagree on {len(wrong)} keys ({name_keys(wrong)}); "
            "fetch both again"
        )


def _inside(index: Path, name: str) -> Path:
    """Return the path of a shard; raise `CheckpointError` when it leads out of the folder.

    A link may lead into the `blobs` of a Hub cache that the folder is a snapshot in.
    """
    path = index.parent / name
    folder, target = index.parent.resolve(), path.resolve()
    is_blob = target.parent.name == "blobs" and target.parent.parent in folder.parents
    if "/" in name or "\\" in name or "\0" in name or not (target.parent == folder or is_blob):
        raise CheckpointError(
            f"{index} says that weights are in {name!r}, outside its folder; put the file there"
        )
    return path
