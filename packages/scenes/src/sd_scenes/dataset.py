"""Captioned pictures: one by one, as a sequence, as a folder."""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import overload

from PIL import Image

from sd_scenes.captions import caption
from sd_scenes.colours import NAMED
from sd_scenes.composition import compose, name_cloth, say_side
from sd_scenes.errors import SceneError
from sd_scenes.marking import can_be_marked, mark
from sd_scenes.painter import paint_scene
from sd_scenes.places import PLACES
from sd_scenes.relations import AND, LEFT, NEXT, RIGHT
from sd_scenes.scene import Scene
from sd_scenes.views import make_view

METADATA = "metadata.jsonl"
_RECIPE = "scenes.json"
_UNSAID = ("two_coloured", "sided", "marked", "cloths", "subject", "labelled")
_PER_FOLDER = 1000

Picture = tuple[Image.Image, str]


def make_scene(
    seed: int,
    index: int,
    *,
    two_coloured: float = 0.0,
    sided: float = 0.0,
    marked: float = 0.0,
    cloths: float = 0.0,
    one_kind: bool = False,
) -> tuple[Scene, str]:
    """Make up scene ``index`` of the set ``seed``, with its caption.

    With the chance ``two_coloured`` (0 to 1) a scene is made up again until it holds two groups of
    different named colours. They are one scene in six otherwise, and from them alone a model learns
    which colour belongs to which thing: for all others a bag of words would do. With the chance
    ``sided`` (0 to 1) a scene of two things side by side says which is left, where it would have
    said "and" or "next to"; the picture stays the same. With the chance ``marked`` (0 to 1) it is
    made up again until it holds a dog or a cat, which has patches, a scarf or one ear up, and the
    caption says so. With the chance ``cloths`` (0 to 1) a mat or a rug has any of the colours, each
    as likely as another, and the caption names it: of itself few are white. With ``one_kind`` it is
    made up again until it holds things of one kind, which is then what the scene shows.
    """
    if one_kind and (two_coloured or sided or marked):
        raise SceneError(
            "scenes of one kind of thing have no two sides, no two named colours and no marks; "
            "leave out the shares two_coloured, sided and marked, or one_kind"
        )
    _check_shares(two_coloured=two_coloured, sided=sided, marked=marked, cloths=cloths)
    rng = Random(f"scene/{seed}/{index}")
    scene = compose(rng)
    while one_kind and len(scene.groups) > 1:
        scene = compose(rng)
    two = rng.random() < two_coloured
    marks = Random(f"marks/{seed}/{index}")
    marking = marks.random() < marked
    while (two and not _two_coloured(scene)) or (marking and not can_be_marked(scene)):
        scene = compose(rng)
    if sided and scene.relation in (NEXT, AND):
        sides = Random(f"sides/{seed}/{index}")
        if sides.random() < sided:
            scene = say_side(scene, sides.choice((LEFT, RIGHT)))
    if marking:
        scene = mark(scene, marks)
    if cloths and scene.place is not None and PLACES[scene.place].coloured:
        dyes = Random(f"cloths/{seed}/{index}")
        if dyes.random() < cloths:
            scene = name_cloth(scene, dyes.choice(tuple(NAMED)))
    return scene, caption(scene, Random(f"caption/{seed}/{index}"))


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise SceneError(
                f"a share of {share} {name.replace('_', '-')} scenes is none; choose 0 to 1"
            )


def _two_coloured(scene: Scene) -> bool:
    colours = [group.colour for group in scene.groups]
    return len(colours) == 2 and None not in colours and colours[0] != colours[1]


def draw_scene(
    seed: int,
    index: int,
    size: int = 128,
    *,
    two_coloured: float = 0.0,
    sided: float = 0.0,
    marked: float = 0.0,
    cloths: float = 0.0,
) -> Picture:
    """Draw scene ``index`` of the set ``seed`` as (RGB picture of ``size`` pixels, caption).

    The same arguments give the same pixels and words in every process. Raises
    :class:`SceneError` for a ``size`` outside [16, 2048], a negative ``index``, or a share
    ``two_coloured``, ``sided``, ``marked`` or ``cloths`` (see `make_scene`) outside [0, 1].
    """
    _check(index, size)
    scene, text = make_scene(
        seed, index, two_coloured=two_coloured, sided=sided, marked=marked, cloths=cloths
    )
    return paint_scene(scene, size), text


def draw_subject(name: str, index: int, size: int = 128, *, seed: int = 0) -> Picture:
    """Draw view ``index`` of the subject ``name`` as (RGB picture of ``size`` pixels, caption).

    The caption names the kind and the place, "a dog on grass", and neither the subject nor its
    colours. The same arguments give the same pixels; another ``seed`` gives other views, to hold
    out. Raises :class:`SceneError` for a ``name`` that is not among `subjects`, and as `draw_scene`
    does.
    """
    _check(index, size)
    scene, text = make_view(name, index, seed=seed)
    return paint_scene(scene, size), text


def _check(index: int, size: int) -> None:
    if not 16 <= size <= 2048:
        raise SceneError(f"scenes cannot be drawn {size} pixels wide; choose 16 to 2048")
    if index < 0:
        raise SceneError(f"there is no scene {index}; count from 0")


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


@dataclass(frozen=True, slots=True)
class _Recipe:
    seed: int
    size: int
    two_coloured: float
    sided: float
    marked: float
    cloths: float
    subject: str | None
    labelled: bool

    def scene(self, index: int) -> tuple[Scene, str]:
        if self.subject is None:
            return make_scene(
                self.seed,
                index,
                two_coloured=self.two_coloured,
                sided=self.sided,
                marked=self.marked,
                cloths=self.cloths,
                one_kind=self.labelled,
            )
        if self.labelled:
            raise SceneError(
                f"views of {self.subject} are all of one thing; leave out labelled or the subject"
            )
        shares = {
            "two-coloured": self.two_coloured,
            "sided": self.sided,
            "marked": self.marked,
            "cloths": self.cloths,
        }
        for name, share in shares.items():
            if share:
                raise SceneError(
                    f"a view of {self.subject} shows it alone: it takes no share of"
                    f" {share} {name} scenes; leave one of them out"
                )
        return make_view(self.subject, index, seed=self.seed)

    def told(self) -> dict[str, int | float | str]:
        """Return what a folder remembers; what is not asked for is not said, as in older ones."""
        return {name: value for name, value in asdict(self).items() if value or name not in _UNSAID}


def write_folder(
    path: str | Path,
    count: int,
    *,
    seed: int = 0,
    size: int = 128,
    two_coloured: float = 0.0,
    sided: float = 0.0,
    marked: float = 0.0,
    cloths: float = 0.0,
    subject: str | None = None,
    labelled: bool = False,
    workers: int | None = None,
    on_item: Callable[[int], None] | None = None,
) -> Path:
    """Write ``count`` scenes as PNG files with a ``metadata.jsonl`` of "file_name" and "text".

    Every file appears whole or not at all, the metadata last; a folder of the same ``seed``,
    ``size``, shares ``two_coloured``, ``sided``, ``marked`` and ``cloths`` (see `make_scene`) and
    ``subject`` (see `draw_subject`; None draws scenes) is continued. With ``labelled`` each scene
    holds things of one kind, which is its "label". ``on_item`` is called with the number of
    pictures ready so far. ``workers`` processes draw; None is one a core, or this one alone for a
    few pictures. Raises :class:`SceneError` when the folder holds something else or cannot be
    written, and for a share or a subject that there is not.
    """
    if count < 1:
        raise SceneError(f"a folder of {count} scenes is none; ask for 1 or more")
    folder, recipe = (
        Path(path),
        _Recipe(seed, size, two_coloured, sided, marked, cloths, subject, labelled),
    )
    recipe.scene(0)
    try:
        _claim(folder, recipe)
        rows = _draw_all(folder, count, workers or _fitting(count), recipe, on_item)
        _replace(folder / METADATA, "".join(json.dumps(row) + "\n" for row in rows).encode())
    except OSError as error:
        raise SceneError(f"cannot write scenes to {folder}: {error.strerror or error}") from error
    return folder


def _draw_all(
    folder: Path,
    count: int,
    workers: int,
    recipe: _Recipe,
    on_item: Callable[[int], None] | None,
) -> list[dict[str, str]]:
    for start in range(0, count, _PER_FOLDER):
        (folder / _file_name(start)).parent.mkdir(parents=True, exist_ok=True)
    draw = partial(_write_one, folder, recipe)
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


def _write_one(folder: Path, recipe: _Recipe, index: int) -> dict[str, str]:
    name = _file_name(index)
    target = folder / name
    scene, text = recipe.scene(index)
    label = {"label": scene.groups[0].thing} if recipe.labelled else {}
    row = {"file_name": name, "text": text, **label}
    if target.exists():
        return row
    _check(index, recipe.size)
    picture = paint_scene(scene, recipe.size)
    part = target.with_suffix(f".{os.getpid()}.part")
    picture.save(part, format="PNG", compress_level=1)
    os.replace(part, target)
    return row


def _file_name(index: int) -> str:
    return f"{index // _PER_FOLDER:04d}/{index:07d}.png"


def _claim(folder: Path, recipe: _Recipe) -> None:
    """Make ``folder`` ours, or see that it is the same set."""
    asked = recipe.told()
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / _RECIPE
    if note.exists():
        found = json.loads(note.read_text())
        if found != asked:
            raise SceneError(
                f"{folder} holds the scenes {found}, not {asked}; choose another folder"
            )
    elif any(folder.iterdir()):
        raise SceneError(f"{folder} is not empty and holds no scenes; choose another folder")
    else:
        _replace(note, json.dumps(asked).encode())


def _replace(target: Path, content: bytes) -> None:
    part = target.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(content)
    os.replace(part, target)
