"""Teach a small network to read scenes: which things, how many, in which colours, where.

    python benchmarks/scene_reader.py --data data/scenes-cloths data/scenes-repainted \\
        data/scenes-repainted --out runs/scene-reader.safetensors

It is the judge of `prompt_following.py`. It learns from pictures that `sdcli scenes` drew, and from
what was put into them; no prompt, and nothing that a UNet made of one, is among them. Blur, noise
and light are changed at random, so that it reads soft pictures, too; and so that it knows painted
ones, some are those of `repaint.py`, whose contents are the scene's and whose strokes are a
model's. At the end it says how often it reads pictures of another seed right.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sd_checkpoint import Checkpoint, save_safetensors
from sd_scenes import PLACES, THINGS, Item, Scene, make_scene, paint_scene
from sd_scenes.backgrounds import INDOORS, SKIES
from sd_scenes.colours import NAMED

THING_NAMES, COLOURS, PLACE_NAMES = tuple(THINGS), tuple(NAMED), (*PLACES, "sky")
BACKGROUNDS = (*SKIES, INDOORS)
MAX_COUNT, MAX_ITEMS = 3, 6
SIZE, CELLS = 64, 16  # pixels and cells a side
HELD_OUT_SEED = 2_000_003  # far from those of training sets
_SPREAD = 0.8  # of a thing's middle, in cells
# Of a middle in any of nine cells, summed: of a long thing it may be in several, none of them
# likely. On scenes of seed 3,000,017 and on repainted ones numbers are read best so.
_SURE = 0.5


class Reading(NamedTuple):
    """What is in a batch of pictures.

    `counts` (B, things) how many, three at most, `colours` (B, things, colours) how many of them
    in each colour, `across` (B, things) where they stand on the whole, 0 at the left edge and 1 at
    the right, `places` (B,), `place_colours` (B,) and `backgrounds` (B,) numbers of `PLACE_NAMES`,
    `COLOURS` and `BACKGROUNDS`; -1 where there is none.
    """

    counts: Tensor
    colours: Tensor
    across: Tensor
    places: Tensor
    place_colours: Tensor
    backgrounds: Tensor


class Maps(NamedTuple):
    """What the network says of a batch, as logits.

    `middles` (B, things, cells, cells) whether the middle of such a thing is there, `colours` (B,
    colours, cells, cells) of the thing that is there; `places` (B, 9), `place_colours` (B,
    colours), `backgrounds` (B, 5).
    """

    middles: Tensor
    colours: Tensor
    places: Tensor
    place_colours: Tensor
    backgrounds: Tensor


class Truth(NamedTuple):
    """What a batch of pictures was made of.

    `things` and `colours` (B, items), -1 where there is none, and their middles `at` (B, items, 2),
    x and y in cells; the rest is as in `Reading`.
    """

    things: Tensor
    colours: Tensor
    at: Tensor
    places: Tensor
    place_colours: Tensor
    backgrounds: Tensor


class Block(nn.Module):
    """Two convolutions beside a shortcut (He et al., arXiv 1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        hidden = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(hidden + self.shortcut(x))


class SceneReader(nn.Module):
    """Reads pictures (B, 3, 64, 64) in [-1, 1].

    It finds the middles of things (Zhou et al., "Objects as points", arXiv 1904.07850) and reads
    each thing's colour there, so that it is not another's.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        wide = 4 * width
        self.trunk = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1),
            Block(width, width),
            Block(width, 2 * width, 2),
            Block(2 * width, 2 * width),
            Block(2 * width, wide),
            Block(wide, wide),
        )
        self.middles = nn.Conv2d(wide, len(THING_NAMES), 1)
        nn.init.constant_(self.middles.bias, -4.0)  # there is hardly ever one
        self.colours = nn.Sequential(
            nn.Conv2d(wide, wide, 1), nn.ReLU(), nn.Conv2d(wide, len(COLOURS), 1)
        )
        self.whole = nn.Sequential(nn.Linear(4 * wide, 2 * wide), nn.ReLU())
        self.places = nn.Linear(2 * wide, len(PLACE_NAMES))
        self.place_colours = nn.Linear(2 * wide, len(COLOURS))
        self.backgrounds = nn.Linear(2 * wide, len(BACKGROUNDS))

    def forward(self, pictures: Tensor) -> Maps:
        """Look at a batch."""
        features = self.trunk(pictures)
        # Quarters of the height: a mat lies below, a sky above.
        whole = self.whole(F.adaptive_avg_pool2d(features, (4, 1)).flatten(1))
        return Maps(
            middles=self.middles(features),
            colours=self.colours(features),
            places=self.places(whole),
            place_colours=self.place_colours(whole),
            backgrounds=self.backgrounds(whole),
        )


def seen_twice(reader: SceneReader, pictures: Tensor) -> Maps:
    """Look at pictures (B, 3, 64, 64) and at their mirror images, and return the mean of both."""
    plain, mirrored = reader(pictures), reader(pictures.flip(-1))
    likely = (plain.middles.sigmoid() + mirrored.middles.flip(-1).sigmoid()) / 2
    hues = plain.colours.softmax(1) + mirrored.colours.flip(-1).softmax(1)
    return Maps(
        middles=likely.logit(),
        colours=hues.log(),
        places=plain.places.log_softmax(-1) + mirrored.places.log_softmax(-1),
        place_colours=plain.place_colours.log_softmax(-1) + mirrored.place_colours.log_softmax(-1),
        backgrounds=plain.backgrounds.log_softmax(-1) + mirrored.backgrounds.log_softmax(-1),
    )


def decided(said: Maps) -> Reading:
    """Return what is in the pictures: a thing wherever a middle is likelier than all around it.

    Of a thing that is nowhere likely the colours are read where it is likeliest.
    """
    single = said.middles.float().sigmoid()
    likely = F.avg_pool2d(single, 3, 1, 1) * 9 + 1e-6 * single  # of equal sums one is the highest
    highest = likely == F.max_pool2d(likely, 5, 1, 2)
    found = highest & (likely > _SURE)
    anywhere = found.flatten(2).any(-1)[..., None, None]
    seen = torch.where(anywhere, found, likely == likely.amax((2, 3), keepdim=True)).float()
    hues = F.one_hot(said.colours.argmax(1), len(COLOURS)).float()
    columns = (torch.arange(CELLS, device=likely.device) + 0.5) / CELLS
    return Reading(
        counts=found.sum((2, 3)).clamp(max=MAX_COUNT),
        colours=torch.einsum("bthw,bhwc->btc", seen, hues).long(),
        across=(seen * columns).sum((2, 3)) / seen.sum((2, 3)),
        places=said.places.argmax(-1),
        place_colours=said.place_colours.argmax(-1),
        backgrounds=said.backgrounds.argmax(-1),
    )


def truth(scene: Scene) -> Truth:
    """Return what a scene is made of, a batch of one."""
    # One with a rim is painted a second time, over what sits in it.
    items = [item for item in scene.items if item.rim is None]
    things, colours = torch.full((2, 1, MAX_ITEMS), -1).unbind()
    at = torch.zeros(1, MAX_ITEMS, 2)
    for place, item in enumerate(items):
        things[0, place] = THING_NAMES.index(item.thing)
        if item.colour in COLOURS:
            colours[0, place] = COLOURS.index(item.colour)
        at[0, place] = torch.tensor(_middle(item)) * CELLS / 128
    place_colour = -1 if scene.place_colour is None else COLOURS.index(scene.place_colour)
    return Truth(
        things=things,
        colours=colours,
        at=at,
        places=torch.tensor([PLACE_NAMES.index(scene.place or "sky")]),
        place_colours=torch.tensor([place_colour]),
        backgrounds=torch.tensor([BACKGROUNDS.index(scene.background)]),
    )


def _middle(item: Item) -> tuple[float, float]:
    return item.x, item.y - item.size * THINGS[item.thing].height / 200


def told(true: Truth) -> Reading:
    """Return what a reader who makes no mistake says."""
    number = len(true.things)
    counts = torch.zeros(number, len(THING_NAMES) + 1)
    counts.scatter_add_(1, true.things % counts.shape[1], torch.ones(true.things.shape))
    colours = torch.zeros(number, len(THING_NAMES), len(COLOURS), dtype=torch.long)
    across = torch.zeros(number, len(THING_NAMES))
    for row, place in (true.things >= 0).nonzero().tolist():
        thing, colour = int(true.things[row, place]), int(true.colours[row, place])
        across[row, thing] += true.at[row, place, 0] / CELLS / counts[row, thing]
        if colour >= 0:
            colours[row, thing, colour] += 1
    known = counts[:, :-1].long().clamp(max=MAX_COUNT)
    return Reading(known, colours, across, *true[3:])


def to_batch(pictures: Sequence[Image.Image]) -> Tensor:
    """Return pictures as the reader wants them, uint8 (B, 3, 64, 64)."""
    small = [
        picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX) for picture in pictures
    ]
    return torch.from_numpy(np.stack([np.asarray(one) for one in small])).permute(0, 3, 1, 2)


def to_float(pictures: Tensor) -> Tensor:
    """Return uint8 pictures in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def loss(said: Maps, true: Truth) -> Tensor:
    """Sum what is wrong in each respect, averaged over things or pictures."""
    near = _nearness(true.at)
    there = (true.things >= 0).float()
    wanted = torch.zeros_like(said.middles)
    for place in range(MAX_ITEMS):
        rows = there[:, place].nonzero()[:, 0]
        index = rows, true.things[rows, place]
        wanted[index] = torch.maximum(wanted[index], near[rows, place])
    hues = sum(
        (
            (near[:, place] > 0.4)
            * F.cross_entropy(
                said.colours,
                true.colours[:, place, None, None].expand(-1, CELLS, CELLS),
                ignore_index=-1,
                reduction="none",
            )
        ).sum()
        for place in range(MAX_ITEMS)
    )
    return (
        _focal(said.middles, wanted) / there.sum()
        + hues / there.sum() / 3
        + F.cross_entropy(said.places, true.places)
        + F.cross_entropy(said.place_colours, true.place_colours, ignore_index=-1)
        + F.cross_entropy(said.backgrounds, true.backgrounds)
    )


def _nearness(at: Tensor) -> Tensor:
    """Return how near every cell (B, items, cells, cells) is to a middle: 1 in its own cell."""
    cells = torch.arange(CELLS) + 0.5
    own = at.floor() + 0.5
    x, y = (cells - own[..., axis, None] for axis in (0, 1))
    return torch.exp(-(x[..., None, :] ** 2 + y[..., :, None] ** 2) / (2 * _SPREAD**2))


def _focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Sum the penalty of arXiv 1904.07850, equation 1: cells near a middle are hardly wrong."""
    likely = logits.sigmoid()
    missed = F.logsigmoid(logits) * (1 - likely) ** 2
    made_up = F.logsigmoid(-logits) * likely**2 * (1 - wanted) ** 4
    return -torch.where(wanted == 1, missed, made_up).sum()


def changed(pictures: Tensor) -> Tensor:
    """Blur, noise and light pictures in [-1, 1] at random, each in its own way."""
    number = len(pictures)
    soft = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = torch.rand(number, 1, 1, 1)
    pictures = pictures.lerp(soft, share * (torch.rand(number, 1, 1, 1) < 0.6))
    light = 1 + 0.1 * torch.randn(number, 1, 1, 1)
    tint = 0.05 * torch.randn(number, 3, 1, 1)
    noise = 0.08 * torch.rand(number, 1, 1, 1) * torch.randn_like(pictures)
    return (pictures * light + tint + noise).clamp(-1, 1)


def mirrored(pictures: Tensor, true: Truth) -> tuple[Tensor, Truth]:
    """Exchange left and right."""
    across, down = true.at.unbind(-1)
    return pictures.flip(-1), true._replace(at=torch.stack([CELLS - 1e-3 - across, down], dim=-1))


def read_folder(folder: Path, last: int = 0) -> tuple[Tensor, Truth]:
    """Return a folder's pictures and what is in them, made up again from the set's seed.

    All of them, or the `last` so many.
    """
    names = [json.loads(line)["file_name"] for line in (folder / "metadata.jsonl").open()][-last:]
    pictures = torch.cat([to_batch([Image.open(folder / name)]) for name in names])
    return pictures, gathered(list(scenes_of(folder))[-last:])


def scenes_of(folder: Path) -> Iterator[Scene]:
    """Yield the scenes of a folder, made up again from its set's seed and shares."""
    recipe = json.loads((folder / "scenes.json").read_text())
    shares = {name: recipe.get(name, 0.0) for name in ("two_coloured", "sided", "marked", "cloths")}
    for index in range(sum(1 for _ in (folder / "metadata.jsonl").open())):
        yield make_scene(recipe["seed"], index, **shares)[0]


def gathered(scenes: Sequence[Scene]) -> Truth:
    """Return the truth of several scenes."""
    return Truth(*(torch.cat(parts) for parts in zip(*map(truth, scenes), strict=True)))


def right(said: Reading, true: Reading) -> dict[str, float]:
    """Return the share that was read right in each respect: how many there are of each thing that
    is there, its colours, the place, the place's colour, the background.
    """
    there, of_cloth = true.counts > 0, true.place_colours >= 0
    counts = (said.counts == true.counts)[there]
    coloured = there & (true.colours.sum(-1) > 0)
    colours = ((said.colours > 0) == (true.colours > 0)).all(-1)[coloured]
    return {
        "counts": float(counts.float().mean()),
        "colours": float(colours.float().mean()),
        "place": float((said.places == true.places).float().mean()),
        "its colour": float((said.place_colours == true.place_colours)[of_cloth].float().mean()),
        "background": float((said.backgrounds == true.backgrounds).float().mean()),
    }


def teach(reader: SceneReader, folders: Sequence[Path], options: argparse.Namespace) -> None:
    """Let a reader learn from folders of scenes, and say how it gets on."""
    parts = [read_folder(folder, options.only) for folder in folders]
    pictures = torch.cat([part[0] for part in parts])
    true = Truth(*(torch.cat(columns) for columns in zip(*(p[1] for p in parts), strict=True)))
    steps = options.epochs * (len(pictures) // options.batch_size)
    peak = 3e-3 if options.begin is None else 1e-3
    optimizer = torch.optim.AdamW(reader.parameters(), lr=peak, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=max(steps, 2))
    begun, done = time.perf_counter(), 0
    for _ in range(options.epochs):
        for index in torch.randperm(len(pictures)).split(options.batch_size):
            if len(index) < options.batch_size:
                continue
            batch, truths = to_float(pictures[index]), Truth(*(part[index] for part in true))
            if torch.rand(()) < 0.5:
                batch, truths = mirrored(batch, truths)
            with torch.autocast("cpu", torch.bfloat16):
                said = reader(changed(batch).contiguous(memory_format=torch.channels_last))
            error = loss(Maps(*(part.float() for part in said)), truths)
            optimizer.zero_grad()
            error.backward()
            nn.utils.clip_grad_norm_(reader.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            done += 1
            if done % 100 == 0:
                rate = done * options.batch_size / (time.perf_counter() - begun)
                so_far = f"step {done} of {steps}  loss {float(error.detach()):.3f}"
                print(f"{so_far}  {rate:.0f} pictures/s", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Teach a reader and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of scenes")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--begin", type=Path, help="a reader to go on from")
    parser.add_argument("--only", type=int, default=0, help="pictures of a folder; 0 is all")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--held-out", type=int, default=1000, help="pictures to say how good it is")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    reader = SceneReader().to(memory_format=torch.channels_last)
    if options.begin is not None:
        reader.load_state_dict(dict(Checkpoint.open(options.begin)))
    teach(reader, options.data, options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_safetensors(options.out, reader.state_dict())
    reader.eval()
    scenes = [make_scene(HELD_OUT_SEED, i, two_coloured=0.3)[0] for i in range(options.held_out)]
    with torch.inference_mode():
        drawn = to_float(to_batch([paint_scene(scene, 128) for scene in scenes]))
        said = [decided(seen_twice(reader, some)) for some in drawn.split(64)]
    shares = right(
        Reading(*(torch.cat(parts) for parts in zip(*said, strict=True))), told(gathered(scenes))
    )
    print(
        "of pictures of another seed it reads right:",
        ", ".join(f"{name} {share:.3f}" for name, share in shares.items()),
    )


if __name__ == "__main__":
    main()
