"""Show what finetuning made of five pictures of one dog: it in new places, and other dogs.

    uv run sdcli scenes rex --subject rex --count 5
    uv run sdcli lora train --images rex
    uv run sdcli textual-inversion --images rex
    uv run sdcli hypernetwork --images rex
    uv run sdcli dreambooth --images rex
    uv run python examples/finetuned.py runs/lora-rex runs/textual-inversion-rex \
        runs/hypernetwork-rex runs/dreambooth-rex --out rex.png

A row a run: the subject in new places, then two of its kind, which are to be as they were. Places
and seeds are the same in every row.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from sd_pipeline import AdapterUse, Pipeline, Txt2Img, load_pipeline
from sd_pipeline.adapter_use import AdapterKind
from sd_train import (
    FinetuneConfig,
    HypernetworkTrainConfig,
    TextualInversionConfig,
    load_run,
)
from sd_train.contact_sheet import save_sheet
from sd_train.data import PictureFolder

PLACES = ("on a red mat", "on the grass", "in the snow", "next to a red ball", "on a green rug")
KIND = ("on a red mat", "on the grass")


def open_run(run: Path) -> tuple[FinetuneConfig, Pipeline, tuple[AdapterUse, ...]]:
    """Return a run's settings, what draws with its result, and its adapter if it made one."""
    config = load_run(run)
    if not isinstance(config, FinetuneConfig):
        raise SystemExit(f"{run} is no finetuner's run")
    product = run / "model" / config.file_name
    whole = product.is_dir()
    pipeline = load_pipeline(product if whole else Path(config.model), device="cpu", dtype="fp32")
    if whole:
        return config, pipeline, ()
    kind: AdapterKind = "lora"
    if isinstance(config, TextualInversionConfig):
        kind = "embedding"
    elif isinstance(config, HypernetworkTrainConfig):
        kind = "hypernetwork"
    return config, pipeline, (AdapterUse(kind=kind, file=str(product)),)


def draw(run: Path, seed: int) -> tuple[str, list[Image.Image]]:
    """Draw a run's row: its title and its pictures."""
    config, pipeline, adapters = open_run(run)
    subject = config.instance_prompt.replace(
        getattr(config, "placeholder", "") or "\0", config.name
    )
    kind = f"a {config.noun}"
    prompts = [f"{subject} {place}" for place in PLACES] + [f"{kind} {place}" for place in KIND]
    # A learnt word is drawn with its run's own guidance, which is less than the model's.
    scale = config.samples.guidance_scale if isinstance(config, TextualInversionConfig) else None
    pictures = []
    for index, prompt in enumerate(prompts):
        request = Txt2Img(prompt=prompt, seed=seed + index, adapters=adapters, guidance_scale=scale)
        pictures += [picture.image for picture in pipeline.txt2img(request)]
    told = ", ".join(PLACES)
    return f"{run.name}: {subject!r} {told}; {kind!r} {', '.join(KIND)}", pictures


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the sheet that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finetuners' runs")
    parser.add_argument("--seed", type=int, default=30, help="of each row's first picture")
    parser.add_argument("--out", type=Path, default=Path("finetuned.png"), help="the PNG to write")
    options = parser.parse_args(arguments)
    config = open_run(options.runs[0])[0]
    folder = PictureFolder(config.data)
    learnt = [
        Image.fromarray(one.permute(1, 2, 0).numpy()) for one in folder.pictures(range(len(folder)))
    ]
    rows = [("learnt from", learnt), *(draw(run, options.seed) for run in options.runs)]
    save_sheet(options.out, rows, folder.config.size)
    print(f"{options.out}: {len(rows)} rows")


if __name__ == "__main__":
    main()
