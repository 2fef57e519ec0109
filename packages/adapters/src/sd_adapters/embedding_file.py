"""Embedding files: those of the web UI, of diffusers, of kohya's scripts, and SDXL's."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sd_adapters.adapter import AdapterError
from sd_adapters.embedding import Embedding
from sd_adapters.origin import Origin
from sd_adapters.torch_file import save_pickle
from sd_checkpoint import Checkpoint, load_pickle, save_safetensors

EmbeddingLayout = Literal["webui", "diffusers", "kohya"]
_SDXL = ("clip_l", "clip_g")
_KOHYA = "emb_params"
_WEBUI = "string_to_param"
_BESIDE = {"string_to_token", "name", "step", "sd_checkpoint", "sd_checkpoint_name", "hash"}


def load_embedding(path: str | os.PathLike[str], name: str | None = None) -> Embedding:
    """Read an embedding, its vectors in float32, from .pt, .bin or .safetensors of any layout.

    It is called ``name``, or else the token that a diffusers file names, or else as the file is:
    that is what the web UI goes by, whatever name stands inside. Raises ``AdapterError`` listing
    the keys when they are not those of one embedding, and ``CheckpointError`` for a broken file.
    """
    if Path(path).suffix.lower() == ".safetensors":
        file = Checkpoint.open(path)
        content: Any = dict(file)
        beside: Mapping[str, Any] = file.metadata
    else:
        content = beside = load_pickle(path)
    if not isinstance(content, dict):
        raise AdapterError(f"{path} holds a {type(content).__name__}, not an embedding")
    token, vectors = _vectors(content, path)
    return Embedding(
        name=name or token or Path(path).stem,
        vectors=tuple(_plain(each) for each in vectors),
        origin=_origin(beside),
    )


def save_embedding(
    path: str | os.PathLike[str], embedding: Embedding, layout: EmbeddingLayout = "webui"
) -> None:
    """Write an embedding; as a pickle where the suffix is .pt or .bin, else as safetensors.

    ``layout`` matters where there is one tower: the web UI's (.pt only) with its steps and
    checkpoint, diffusers' with the name as the key, or kohya's ``emb_params``. SDXL's is
    ``clip_l`` and ``clip_g`` everywhere. Raises ``AdapterError`` where the layout has no such file.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".pt", ".bin", ".safetensors"):
        raise AdapterError(f"an embedding is written as .pt, .bin or .safetensors, not {suffix!r}")
    # Copies: torch.save writes all of the memory that a view is of, here a whole vocabulary.
    vectors = tuple(v.detach().to("cpu", copy=True).contiguous() for v in embedding.vectors)
    if len(vectors) > len(_SDXL):
        raise AdapterError(f"there is no file for an embedding of {len(vectors)} text towers")
    content: dict[str, Any]
    if len(vectors) == len(_SDXL):
        content = dict(zip(_SDXL, vectors, strict=True))
    elif layout == "webui":
        if suffix == ".safetensors":
            raise AdapterError("the web UI's own layout is a .pt; it reads kohya's safetensors too")
        content = _webui(embedding, vectors[0])
    else:
        content = {_KOHYA if layout == "kohya" else embedding.name: vectors[0]}
    if suffix == ".safetensors":
        save_safetensors(path, content, _metadata(embedding))
    else:
        save_pickle(path, content)


def _webui(embedding: Embedding, vectors: Tensor) -> dict[str, Any]:
    origin = embedding.origin
    return {
        # 265 is the id of "*" in CLIP's vocabulary, and has no other meaning here.
        "string_to_token": {"*": 265},
        "string_to_param": {"*": vectors},
        "name": embedding.name,
        "step": origin.step,
        "sd_checkpoint": origin.sd_checkpoint,
        "sd_checkpoint_name": origin.sd_checkpoint_name,
    }


def _metadata(embedding: Embedding) -> dict[str, str]:
    origin = embedding.origin
    beside = {
        "name": embedding.name,
        "step": origin.step,
        "sd_checkpoint": origin.sd_checkpoint,
        "sd_checkpoint_name": origin.sd_checkpoint_name,
    }
    return {key: str(value) for key, value in beside.items() if value is not None}


def _vectors(
    content: Mapping[Any, Any], path: str | os.PathLike[str]
) -> tuple[str | None, tuple[Tensor, ...]]:
    """Return the token that the file names, if it does, and the vectors of each tower."""
    if _WEBUI in content:
        params = content[_WEBUI]
        _require_keys(content, {_WEBUI, *_BESIDE}, path)
        if not isinstance(params, dict) or len(params) != 1:
            raise AdapterError(f"{path} holds not one term", map(str, params or ()))
        return None, (next(iter(params.values())),)
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    _require_keys(content, {*tensors, *_BESIDE}, path)
    if tensors.keys() == set(_SDXL):
        return None, tuple(tensors[tower] for tower in _SDXL)
    if len(tensors) != 1:
        raise AdapterError(f"{path} holds {len(tensors)} terms, not one", map(str, tensors))
    ((token, vectors),) = tensors.items()
    # A lone tower of SDXL's pair names no token either.
    return None if token in (_KOHYA, *_SDXL) else str(token), (vectors,)


def _require_keys(
    content: Mapping[Any, Any], known: set[Any], path: str | os.PathLike[str]
) -> None:
    unknown = content.keys() - known
    if unknown:
        raise AdapterError(f"{len(unknown)} keys of {path} are no embedding's", map(str, unknown))


def _plain(vectors: object) -> Tensor:
    """Return vectors as float32 (n, D): diffusers writes a single one as (D,)."""
    if not isinstance(vectors, Tensor) or not vectors.is_floating_point():
        raise AdapterError("the file's embedding is no tensor of numbers")
    vectors = vectors.detach().to(torch.float32, copy=True)
    return vectors[None] if vectors.ndim == 1 else vectors


def _origin(content: Mapping[str, Any]) -> Origin:
    # A number in a pickle, and in the header of a safetensors file its digits.
    step = str(content.get("step"))
    return Origin(
        step=int(step) if step.isdecimal() else None,
        sd_checkpoint=_text(content.get("sd_checkpoint")),
        sd_checkpoint_name=_text(content.get("sd_checkpoint_name")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
