"""Teach a small network to read scenes: which things, how many, in which colours, where.

    python benchmarks/scene_reader.py --data data/scenes-pairs --out runs/scene-reader.safetensors

It is the judge of `prompt_following.py` and knows nothing of the models that it judges: it learns
from pictures that `sdcli scenes` drew, and from what was put into them. Blur, noise and light are
changed at random, so that it reads soft pictures, too. At the end it says how often it reads
pictures of another seed right.
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

from sd_checkpoint import save_safetensors
from sd_scenes import PLACES, THINGS, Scene, make_scene, paint_scene
from sd_scenes.backgrounds import INDOORS, SKIES
from sd_scenes.colours import NAMED

THING_NAMES, COLOURS, PLACE_NAMES = tuple(THINGS), tuple(NAMED), (*PLACES, "sky")
BACKGROUNDS = (*SKIES, INDOORS)
MAX_COUNT = 3
SIZE = 64
HELD_OUT_SEED = 2_000_003  # far from those of training sets


class Reading(NamedTuple):
    """Logits, or the truth, of a batch of pictures.

    `counts` (B, things, 4) for none to three, `colours` (B, things, colours) each for itself,
    `across` (B, things) where the thing stands, 0 at the left edge and 1 at the right, `places`
    (B, 9), `place_colours` (B, colours), `backgrounds` (B, 5). The truth has class numbers in place
    of logits but for `colours`, and -1 where there is none.
    """

    counts: Tensor
    colours: Tensor
    across: Tensor
    places: Tensor
    place_colours: Tensor
    backgrounds: Tensor


class Block(nn.Module):
    """Two convolutions beside a shortcut (He et al., arXiv 1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(8, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(8, outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        hidden = self.norm2(self.conv2(F.silu(self.norm1(self.conv1(x)))))
        return F.silu(hidden + self.shortcut(x))


class SceneReader(nn.Module):
    """Reads pictures (B, 3, 64, 64) in [-1, 1].

    Every thing has a map of where it is; its colours and its count are read there, so that they are
    not another thing's.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        wide = 4 * width
        self.trunk = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1),
            Block(width, width, 1),
            Block(width, 2 * width, 2),
            Block(2 * width, 2 * width, 1),
            Block(2 * width, wide, 1),
            Block(wide, wide, 1),
        )
        self.maps = nn.Conv2d(wide, len(THING_NAMES), 1)
        self.counts = nn.Parameter(torch.randn(len(THING_NAMES), wide + 2, MAX_COUNT + 1) * 0.02)
        # What is there at all is soon seen in the whole; where, and how often, takes the maps.
        self.seen = nn.Linear(3 * wide, len(THING_NAMES) * (MAX_COUNT + 1))
        self.colours = nn.Sequential(
            nn.Linear(wide, wide), nn.SiLU(), nn.Linear(wide, len(COLOURS))
        )
        self.whole = nn.Sequential(nn.Linear(4 * wide, 2 * wide), nn.SiLU())
        self.places = nn.Linear(2 * wide, len(PLACE_NAMES))
        self.place_colours = nn.Linear(2 * wide, len(COLOURS))
        self.backgrounds = nn.Linear(2 * wide, len(BACKGROUNDS))

    def forward(self, pictures: Tensor) -> Reading:
        """Read a batch."""
        features = self.trunk(pictures)
        maps = self.maps(features).flatten(2)
        shares = maps.softmax(-1)
        there = shares @ features.flatten(2).transpose(1, 2)
        mass = torch.stack([maps.sigmoid().sum(-1) / 16, maps.amax(-1) / 4], dim=-1)
        columns = torch.arange(features.shape[-1], device=maps.device) + 0.5
        columns = columns.repeat(features.shape[-2]) / features.shape[-1]
        # Quarters of the height: a mat lies below, a sky above.
        strips = F.adaptive_avg_pool2d(features, (4, 1)).flatten(1)
        whole = self.whole(strips)
        flat = features.flatten(2)
        seen = self.seen(torch.cat([flat.mean(-1), flat.amax(-1), flat.std(-1)], dim=-1))
        counts = torch.einsum("btc,tcn->btn", torch.cat([there, mass], dim=-1), self.counts)
        return Reading(
            counts=counts + seen.unflatten(-1, (len(THING_NAMES), MAX_COUNT + 1)),
            colours=self.colours(there),
            across=(shares * columns).sum(-1),
            places=self.places(whole),
            place_colours=self.place_colours(whole),
            backgrounds=self.backgrounds(whole),
        )


def truth(scene: Scene) -> Reading:
    """Return what a reader should say of a scene, a batch of one."""
    counts = torch.zeros(len(THING_NAMES), dtype=torch.long)
    colours = torch.zeros(len(THING_NAMES), len(COLOURS))
    across = torch.full((len(THING_NAMES),), -1.0)
    for number, thing in enumerate(THING_NAMES):
        # One with a rim is painted a second time, over what sits in it.
        items = [item for item in scene.items if item.thing == thing and item.rim is None]
        counts[number] = min(len(items), MAX_COUNT)
        for item in items:
            if item.colour in COLOURS:
                colours[number, COLOURS.index(item.colour)] = 1.0
        if items:
            across[number] = sum(item.x for item in items) / len(items) / 128
    place_colour = -1 if scene.place_colour is None else COLOURS.index(scene.place_colour)
    return Reading(
        counts=counts[None],
        colours=colours[None],
        across=across[None],
        places=torch.tensor([PLACE_NAMES.index(scene.place or "sky")]),
        place_colours=torch.tensor([place_colour]),
        backgrounds=torch.tensor([BACKGROUNDS.index(scene.background)]),
    )


def to_batch(pictures: Sequence[Image.Image]) -> Tensor:
    """Return pictures as the reader wants them, uint8 (B, 3, 64, 64)."""
    small = [
        picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX) for picture in pictures
    ]
    return torch.from_numpy(np.stack([np.asarray(one) for one in small])).permute(0, 3, 1, 2)


def to_float(pictures: Tensor) -> Tensor:
    """Return uint8 pictures in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def loss(said: Reading, true: Reading) -> Tensor:
    """Sum what is wrong in each respect, averaged over a batch."""
    present = true.counts > 0
    of_colours = F.binary_cross_entropy_with_logits(said.colours, true.colours, reduction="none")
    coloured = present & (true.colours.sum(-1) > 0)
    of_counts = F.cross_entropy(said.counts.transpose(1, 2), true.counts, reduction="none")
    return (
        # A picture has one or two of the things: unweighed, "none" is nearly always right.
        of_counts[present].mean() * 2
        + of_counts[~present].mean() * 8
        + of_colours[coloured].sum(-1).mean()
        + 5 * (said.across - true.across).abs()[present].mean()
        + F.cross_entropy(said.places, true.places)
        + F.cross_entropy(said.place_colours, true.place_colours, ignore_index=-1)
        + F.cross_entropy(said.backgrounds, true.backgrounds)
    )


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


def read_folder(folder: Path) -> tuple[Tensor, Reading]:
    """Return a folder's pictures and what is in them, made up again from the set's seed."""
    names = [json.loads(line)["file_name"] for line in (folder / "metadata.jsonl").open()]
    pictures = torch.cat([to_batch([Image.open(folder / name)]) for name in names])
    return pictures, gathered(list(scenes_of(folder)))


def scenes_of(folder: Path) -> Iterator[Scene]:
    """Yield the scenes of a folder, made up again from its set's seed and shares."""
    recipe = json.loads((folder / "scenes.json").read_text())
    shares = {name: recipe.get(name, 0.0) for name in ("two_coloured", "sided", "marked")}
    for index in range(sum(1 for _ in (folder / "metadata.jsonl").open())):
        yield make_scene(recipe["seed"], index, **shares)[0]


def gathered(scenes: Sequence[Scene]) -> Reading:
    """Return the truth of several scenes."""
    return Reading(*(torch.cat(parts) for parts in zip(*map(truth, scenes), strict=True)))


def rows(reading: Reading, index: Tensor) -> Reading:
    """Return some rows of a batch."""
    return Reading(*(part[index] for part in reading))


def right(said: Reading, true: Reading) -> dict[str, float]:
    """Return the share that was read right in each respect: all counts of a picture, each thing's
    colours, the place, the place's colour, the background.
    """
    present = (true.counts > 0) & (true.colours.sum(-1) > 0)
    told = true.place_colours >= 0
    counts = (said.counts.argmax(-1) == true.counts).all(-1)
    colours = ((said.colours > 0) == (true.colours > 0)).all(-1)[present]
    return {
        "counts": float(counts.float().mean()),
        "colours": float(colours.float().mean()),
        "place": float((said.places.argmax(-1) == true.places).float().mean()),
        "its colour": float(
            (said.place_colours.argmax(-1) == true.place_colours)[told].float().mean()
        ),
        "background": float((said.backgrounds.argmax(-1) == true.backgrounds).float().mean()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Teach a reader and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of scenes")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--held-out", type=int, default=1000, help="pictures to say how good it is")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    reader = SceneReader().to(memory_format=torch.channels_last)
    parts = [read_folder(folder) for folder in options.data]
    pictures = torch.cat([part[0] for part in parts])
    true = Reading(*(torch.cat(columns) for columns in zip(*(p[1] for p in parts), strict=True)))
    steps = options.epochs * (len(pictures) // options.batch_size)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=max(steps, 2))
    begun, done = time.perf_counter(), 0
    for _ in range(options.epochs):
        for index in torch.randperm(len(pictures)).split(options.batch_size):
            if len(index) < options.batch_size:
                continue
            batch = to_float(pictures[index]).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                said = reader(changed(batch))
            error = loss(Reading(*(part.float() for part in said)), rows(true, index))
            optimizer.zero_grad()
            error.backward()
            nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            done += 1
            if done % 100 == 0:
                rate = done * options.batch_size / (time.perf_counter() - begun)
                told = f"step {done} of {steps}  loss {float(error.detach()):.3f}"
                print(f"{told}  {rate:.0f} pictures/s", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_safetensors(options.out, reader.state_dict())
    scenes = [make_scene(HELD_OUT_SEED, i, two_coloured=0.3)[0] for i in range(options.held_out)]
    with torch.inference_mode():
        drawn = to_float(to_batch([paint_scene(scene, 128) for scene in scenes]))
        said = Reading(*(torch.cat(p) for p in zip(*map(reader, drawn.split(64)), strict=True)))
    shares = right(said, gathered(scenes))
    print(
        "of pictures of another seed it reads right:",
        ", ".join(f"{name} {share:.3f}" for name, share in shares.items()),
    )


if __name__ == "__main__":
    main()
