"""Draw prompts whose right answer is known with the embedded model, and lay them out to be judged.

    python examples/contact_sheet.py --seed 1 --count 60 --out sheet.png

The prompts are `sd_scenes.eval_prompts(seed, count)`; no training set holds their random numbers.
Picture i uses seed + i. Each stands above its prompt, so that an eye can tell right from wrong.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from matplotlib.figure import Figure

from sd_pipeline import Picture, Txt2Img, load_pipeline
from sd_scenes import eval_prompts, model_folder


def draw(prompts: Sequence[str], seed: int, model: Path) -> list[Picture]:
    """Draw one picture a prompt with the model's own settings."""
    pipeline = load_pipeline(model, device="cpu")
    pictures: list[Picture] = []
    for index, prompt in enumerate(prompts):
        pictures += pipeline.txt2img(Txt2Img(prompt=prompt, seed=seed + index))
    return pictures


def sheet(pictures: Sequence[Picture], prompts: Sequence[str], columns: int) -> Figure:
    """Lay pictures out in rows, each above its number and prompt."""
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(1.6 * columns, 1.95 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    for index, (axis, picture, prompt) in enumerate(zip(axes, pictures, prompts, strict=False)):
        axis.imshow(picture.image)
        axis.set_title(
            "\n".join(wrap(f"{index}: {prompt}", 28)), y=-0.03, pad=0, va="top", fontsize=6
        )
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the sheet that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="of the prompts and of the noise")
    parser.add_argument("--count", type=int, default=60, help="how many prompts")
    parser.add_argument("--columns", type=int, default=10, help="pictures in a row")
    parser.add_argument("--prompts", nargs="*", help="these in place of made-up ones")
    parser.add_argument("--model", type=Path, help="a model folder in place of the embedded one")
    parser.add_argument("--out", type=Path, default=Path("sheet.png"), help="the PNG to write")
    options = parser.parse_args(arguments)
    prompts = options.prompts or [p.text for p in eval_prompts(options.seed, options.count)]
    pictures = draw(prompts, options.seed, options.model or model_folder())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(pictures, prompts, options.columns).savefig(options.out, dpi=150)
    print(f"{options.out}: {len(pictures)} pictures")


if __name__ == "__main__":
    main()
