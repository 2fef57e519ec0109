"""Captioned pictures: one by one, as a sequence, as a folder."""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import overload

from PIL import Image

from sd_scenes.captions import caption
from sd_scenes.composition import compose
from sd_scenes.errors import SceneError
from sd_scenes.painter import paint_scene
from sd_scenes.scene import Scene

METADATA = "metadata.jsonl"
_RECIPE = "scenes.json"
_PER_FOLDER = 1000

Picture = tuple[Image.Image, str]


def make_scene(seed: int, index: int) -> tuple[Scene, str]:
    """Make up scene ``index`` of the set ``seed``, with its caption."""
    scene = compose(Random(f"scene/{seed}/{index}"))
    return scene, caption(scene, Random(f"caption/{seed}/{index}"))


def draw_scene(seed: int, index: int, size: int = 128) -> Picture:
    """Draw scene ``index`` of the set ``seed`` as (RGB picture of ``size`` pixels, caption).

    The same arguments give the same pixels and words in every process. Raises
    :class:`SceneError` for a ``size`` outside [16, 2048] or a negative ``index``.
    """
    if not 16 <= size <= 2048:
        raise SceneError(f"scenes cannot be drawn {size} pixels wide; choose 16 to 2048")
    if index < 0:
        raise SceneError(f"there is no scene {index}; count from 0")
    scene, text = make_scene(seed, index)
    return paint_scene(scene, size), text


class Scenes(Sequence[Picture]):
    """The first ``count`` scenes of the set ``seed``, drawn when asked for."""

    def __init__(self, seed: int = 0, count: int = 1000, size: int = 128) -> None:
        if count < 0:
            raise SceneError(f"a set cannot hold {count} scenes; ask for 0 or more")
        self.seed, self.num_scenes, self.size = seed, count, size

    def __len__(self) -> int:
        return self.num_scenes

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> list[Picture]: ...
    def __getitem__(self, index: int | slice) -> Picture | list[Picture]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.num_scenes))]
        if not -self.num_scenes <= index < self.num_scenes:
            raise IndexError(f"scene {index} of {self.num_scenes}")
        return draw_scene(self.seed, index % self.num_scenes, self.size)


def write_folder(
    path: str | Path,
    count: int,
    *,
    seed: int = 0,
    size: int = 128,
    workers: int | None = None,
    on_item: Callable[[int], None] | None = None,
) -> Path:
    """Write ``count`` scenes as PNG files with a ``metadata.jsonl`` of "file_name" and "text".

    Every file appears whole or not at all, the metadata last; a folder of the same ``seed`` and
    ``size`` is continued. ``on_item`` is called with the number of pictures ready so far.
    ``workers`` processes draw; None is one a core, or this one alone for a few pictures. Raises
    :class:`SceneError` when the folder holds something else or cannot be written.
    """
    if count < 1:
        raise SceneError(f"a folder of {count} scenes is none; ask for 1 or more")
    folder = Path(path)
    try:
        _claim(folder, seed, size)
        rows = _draw_all(folder, count, workers or _fitting(count), (seed, size), on_item)
        _replace(folder / METADATA, "".join(json.dumps(row) + "\n" for row in rows).encode())
    except OSError as error:
        raise SceneError(f"cannot write scenes to {folder}: {error.strerror or error}") from error
    return folder


def _draw_all(
    folder: Path,
    count: int,
    workers: int,
    recipe: tuple[int, int],
    on_item: Callable[[int], None] | None,
) -> list[dict[str, str]]:
    for start in range(0, count, _PER_FOLDER):
        (folder / _file_name(start)).parent.mkdir(parents=True, exist_ok=True)
    draw = partial(_write_one, folder, *recipe)
    if workers == 1:
        return [_told(on_item, draw(index), index) for index in range(count)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        rows = pool.map(draw, range(count), chunksize=16)
        return [_told(on_item, row, index) for index, row in enumerate(rows)]


def _fitting(count: int) -> int:
    # A process takes as long to start as a hundred pictures take to draw.
    return max(1, min(os.cpu_count() or 1, count // 200))


def _told(on_item: Callable[[int], None] | None, row: dict[str, str], index: int) -> dict[str, str]:
    if on_item is not None:
        on_item(index + 1)
    return row


def _write_one(folder: Path, seed: int, size: int, index: int) -> dict[str, str]:
    name = _file_name(index)
    target = folder / name
    if target.exists():
        return {"file_name": name, "text": make_scene(seed, index)[1]}
    picture, text = draw_scene(seed, index, size)
    part = target.with_suffix(f".{os.getpid()}.part")
    picture.save(part, format="PNG", compress_level=1)
    os.replace(part, target)
    return {"file_name": name, "text": text}


def _file_name(index: int) -> str:
    return f"{index // _PER_FOLDER:04d}/{index:07d}.png"


def _claim(folder: Path, seed: int, size: int) -> None:
    """Make ``folder`` ours, or see that it is the same set."""
    recipe = {"seed": seed, "size": size}
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / _RECIPE
    if note.exists():
        found = json.loads(note.read_text())
        if found != recipe:
            raise SceneError(
                f"{folder} holds the scenes {found}, not {recipe}; choose another folder"
            )
    elif any(folder.iterdir()):
        raise SceneError(f"{folder} is not empty and holds no scenes; choose another folder")
    else:
        _replace(note, json.dumps(recipe).encode())


def _replace(target: Path, content: bytes) -> None:
    part = target.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(content)
    os.replace(part, target)
