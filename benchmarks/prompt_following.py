"""Count how often a model of the scenes draws what it is told, as a network of its own reads it.

    python benchmarks/scene_reader.py --data data/scenes-cloths --out runs/scene-reader.safetensors
    python benchmarks/prompt_following.py --reader runs/scene-reader.safetensors --count 1000 \\
        --unseen data/scenes data/scenes-pairs data/scenes-marked data/scenes-cloths --workers 2

Prompts are `sd_scenes.eval_prompts`, from no training set's random numbers, one picture each; those
whose things, counts, colours, place and background stand together in a picture of the folders
`--unseen` are passed over. In each respect a picture is right or wrong: its things (all that are
named), their counts, the colours that are named, the place with its colour if that is named, the
background, and which of two is left where it is said. The first line is the reader's own ceiling:
how much of it it reads out of true scenes, encoded and decoded by the model's autoencoder.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from textwrap import wrap

import torch
from matplotlib.figure import Figure
from PIL import Image
from scene_reader import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT_SEED,
    MAX_COUNT,
    PLACE_NAMES,
    THING_NAMES,
    Reading,
    SceneReader,
    decided,
    scenes_of,
    seen_twice,
    to_batch,
    to_float,
)

from sd_checkpoint import Checkpoint, atomic_path
from sd_pipeline import Pipeline, load_pipeline, to_images, to_pixels
from sd_scenes import (
    EvalPrompt,
    Group,
    Scene,
    eval_prompts,
    make_scene,
    model_folder,
    paint_scene,
)
from sd_scenes.relations import LEFT, RIGHT
from sd_train import SampleSettings
from sd_train.config import WeightingSettings
from sd_train.tasks.denoising import Denoising

_MOST_SHOWN = 32

Verdict = dict[str, bool]
Combination = tuple[object, ...]
Job = tuple[int, Sequence[EvalPrompt]]


def judge(said: Reading, prompt: EvalPrompt) -> Verdict:
    """Judge a picture, a batch of one, by what its prompt asks for."""
    wanted: dict[str, int] = {}
    for group in prompt.groups:
        wanted[group.thing] = wanted.get(group.thing, 0) + group.count
    number = {thing: int(said.counts[0, THING_NAMES.index(thing)]) for thing in wanted}
    verdict = {
        "things": all(number[thing] > 0 for thing in wanted),
        "counts": all(number[thing] == min(wanted[thing], MAX_COUNT) for thing in wanted),
    }
    if any(group.colour is not None for group in prompt.groups):
        verdict["colours"] = all(_colours_right(said, thing, prompt.groups) for thing in wanted)
    if prompt.place is not None:
        verdict["place"] = PLACE_NAMES[int(said.places[0])] == prompt.place
        if prompt.place_colour is not None:
            verdict["place"] &= COLOURS[int(said.place_colours[0])] == prompt.place_colour
    if prompt.background is not None:
        verdict["background"] = BACKGROUNDS[int(said.backgrounds[0])] == prompt.background
    if prompt.relation in (LEFT, RIGHT) and len(wanted) == 2:
        first, second = (said.across[0, THING_NAMES.index(thing)] for thing in wanted)
        verdict["left or right"] = bool(first < second) == (prompt.relation == LEFT)
    return verdict


def _colours_right(said: Reading, thing: str, groups: Sequence[Group]) -> bool:
    """Tell whether a thing has the colours that are named of it; where all are named, no other."""
    named = [group.colour for group in groups if group.thing == thing]
    seen = said.colours[0, THING_NAMES.index(thing)]
    there = {COLOURS[int(number)] for number in seen.nonzero()[:, 0]}
    return set(named) - {None} <= there and (None in named or there <= set(named))


def prompt_of(index: int) -> tuple[EvalPrompt, Image.Image]:
    """Return a true scene of a seed of its own, as a prompt that asks for all of it."""
    scene, text = make_scene(HELD_OUT_SEED, index)
    asked = EvalPrompt(
        text=text,
        groups=scene.groups,
        relation=scene.relation,
        place=scene.place,
        place_colour=scene.place_colour,
        background=scene.background,
    )
    return asked, paint_scene(scene, 128)


def combination(asked: EvalPrompt | Scene) -> Combination:
    """Return what stands together in a picture, in whichever order it is told."""
    groups = sorted((group.thing, group.count, group.colour or "") for group in asked.groups)
    return *groups, asked.place, asked.place_colour, asked.background


def learnt(folder: Path) -> Iterator[Combination]:
    """Yield the combinations of a folder of scenes, each also as captions that leave things out."""
    for scene in scenes_of(folder):
        for place in {scene.place, None}:
            for colour in {scene.place_colour, None}:
                for background in {scene.background, None}:
                    known = replace(scene, place=place, place_colour=colour, background=background)
                    yield combination(known)


def unseen_prompts(seed: int, count: int, folders: Sequence[Path]) -> list[EvalPrompt]:
    """Return `count` prompts for which no picture of the folders would have been right."""
    known = {one for folder in folders for one in learnt(folder)}
    number = count
    while True:
        prompts = eval_prompts(seed, number)
        unseen = [prompt for prompt in prompts if combination(prompt) not in known]
        if len(unseen) >= count:
            return unseen[:count]
        number += count


@torch.inference_mode()
def read(reader: SceneReader, pictures: Sequence[Image.Image]) -> list[Reading]:
    """Read pictures, each as a batch of one."""
    said = decided(seen_twice(reader, to_float(to_batch(pictures))))
    return [Reading(*(part[number, None] for part in said)) for number in range(len(pictures))]


@torch.inference_mode()
def through_the_autoencoder(pipeline: Pipeline, picture: Image.Image) -> Image.Image:
    """Return what the model's autoencoder makes of a picture."""
    vae = pipeline.parts.vae
    pixels = to_pixels(picture).to(next(vae.parameters()).dtype)
    (decoded,) = to_images(vae.decode(vae.encode(pixels).mode()).float())
    return decoded


def table(verdicts: Iterable[Verdict]) -> dict[str, str]:
    """Return the share of right ones in each respect, and of pictures right in all."""
    verdicts = list(verdicts)
    names = list(dict.fromkeys(name for verdict in verdicts for name in verdict))
    columns = {name: [verdict[name] for verdict in verdicts if name in verdict] for name in names}
    columns["all"] = [all(verdict.values()) for verdict in verdicts]
    return {
        name: f"{sum(values) / len(values):.3f} of {len(values)}"
        for name, values in columns.items()
    }


def failures_sheet(wrong: Sequence[tuple[Image.Image, str]], columns: int = 8) -> Figure:
    """Lay pictures that were read as wrong out, each above its prompt and what is said of it."""
    rows = max(1, -(-len(wrong) // columns))
    figure = Figure(figsize=(1.6 * columns, 2.1 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    for axis, (image, title) in zip(axes, wrong, strict=False):
        axis.imshow(image)
        axis.set_title("\n".join(wrap(title, 28)), y=-0.03, pad=0, va="top", fontsize=6)
    return figure


class Artist:
    """A model that draws prompts, and the reader that judges the pictures."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.folder: Path | None = options.pictures
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.reader = SceneReader().eval()
        self.reader.load_state_dict(dict(Checkpoint.open(options.reader)))
        self.pipeline = load_pipeline(
            options.model or model_folder(), device="cpu", dtype=options.dtype
        )
        self.settings = SampleSettings(
            steps=options.steps or self.pipeline.defaults.num_steps,
            sampler=options.sampler,
            sigmas=options.sigmas,
            guidance_scale=options.guidance or self.pipeline.defaults.guidance_scale,
        )

    def __call__(self, job: Job) -> list[tuple[Verdict, Image.Image]]:
        """Draw prompts, the first from the noise of the seed, and judge them."""
        first_seed, prompts = job
        images = self._pictures(first_seed, [prompt.text for prompt in prompts])
        readings = read(self.reader, images)
        verdicts = [judge(said, asked) for said, asked in zip(readings, prompts, strict=True)]
        return list(zip(verdicts, images, strict=True))

    def _pictures(self, first_seed: int, texts: Sequence[str]) -> list[Image.Image]:
        numbers = range(first_seed, first_seed + len(texts))
        kept = [self.folder / f"{number}.png" for number in numbers] if self.folder else []
        if kept and all(path.is_file() for path in kept):
            return [Image.open(path).convert("RGB") for path in kept]
        draw = Denoising(self.pipeline.parts, WeightingSettings())
        drawn = draw.samples(texts, self.settings, first_seed=first_seed)
        images = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in drawn]
        for image, path in zip(images, kept, strict=False):
            with atomic_path(path) as temporary:
                image.save(temporary, "PNG")
        return images

    def ceiling(self, count: int) -> dict[str, str]:
        """Return what the reader reads right of true scenes that the autoencoder has seen."""
        true = [prompt_of(index) for index in range(count)]
        pictures = [through_the_autoencoder(self.pipeline, picture) for _, picture in true]
        readings = zip(read(self.reader, pictures), true, strict=True)
        return table(judge(said, asked) for said, (asked, _) in readings)


_artists: list[Artist] = []  # of a worker: one


def _begin(options: argparse.Namespace, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    _artists.append(Artist(options))


def _work(job: Job) -> list[tuple[Verdict, Image.Image]]:
    return _artists[0](job)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the model that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reader", type=Path, required=True, help="what scene_reader.py wrote")
    parser.add_argument("--model", type=Path, help="a model's folder; the embedded one otherwise")
    parser.add_argument("--count", type=int, default=1000, help="prompts")
    parser.add_argument("--unseen", type=Path, nargs="*", default=[], help="what it learned from")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures drawn at a time")
    parser.add_argument("--seed", type=int, default=77, help="of the prompts and the first picture")
    parser.add_argument("--steps", type=int, help="the model's own otherwise")
    parser.add_argument("--sampler", default="dpmpp_2m", help="default: the embedded model's")
    parser.add_argument("--sigmas", default="karras", help="default: the embedded model's")
    parser.add_argument("--guidance", type=float, help="the model's own otherwise")
    parser.add_argument("--dtype", default="fp32", help="of the networks: fp32, bf16 or fp16")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    parser.add_argument("--failures", type=Path, help="a .jsonl file to list wrong pictures in")
    parser.add_argument("--pictures", type=Path, help="a folder; what is there is not drawn again")
    parser.add_argument("--sheet", type=Path, help="a PNG of the first 32 wrong pictures")
    options = parser.parse_args(arguments)
    print("ceiling", json.dumps(Artist(options).ceiling(min(options.count, 200))), flush=True)
    prompts = unseen_prompts(options.seed, options.count, options.unseen)
    jobs = [
        (options.seed + first, prompts[first : first + options.batch_size])
        for first in range(0, len(prompts), options.batch_size)
    ]
    verdicts, wrong, shown = [], [], list[tuple[Image.Image, str]]()
    num_threads = max(1, torch.get_num_threads() // options.workers)
    with get_context("spawn").Pool(options.workers, _begin, (options, num_threads)) as pool:
        for (seed, asked_now), drawn in zip(jobs, pool.imap(_work, jobs), strict=True):
            for number, (prompt, (verdict, image)) in enumerate(zip(asked_now, drawn, strict=True)):
                verdicts.append(verdict)
                if not all(verdict.values()):
                    failed = [name for name, good in verdict.items() if not good]
                    wrong.append({"prompt": prompt.text, "seed": seed + number, "wrong": failed})
                    shown.append((image, f"{prompt.text} (wrong: {', '.join(failed)})"))
            print(len(verdicts), json.dumps(table(verdicts)), flush=True)
            if options.failures is not None:
                options.failures.write_text("".join(json.dumps(one) + "\n" for one in wrong))
    if options.sheet is not None:
        failures_sheet(shown[:_MOST_SHOWN]).savefig(options.sheet, dpi=150)
    print("model", json.dumps(table(verdicts)))


if __name__ == "__main__":
    main()
