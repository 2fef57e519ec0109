"""What it costs that a picture does not depend on its batch: the UNet asked one picture at a time.

    uv run python benchmarks/batch_invariant.py                  # the embedded model's size
    uv run python benchmarks/batch_invariant.py --model FOLDER --batch 2

Both ways take turns in one process (A B B A ...), with the same prompt and seeds. Weights are
random unless a model is named, for they make no difference to the time. Prints medians and their
ratio.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from sd_pipeline import Parts, Pipeline, Scheduler, Txt2Img, load_pipeline, save_model


def random_model(folder: Path) -> None:
    """Write a model of the embedded one's size with random weights."""
    import sd_textenc
    import sd_unet
    import sd_vae
    from sd_sampler import DiffusionConfig

    tokenizer = sd_textenc.train_tokenizer(["a cat on a mat"], context_length=32)
    text = sd_textenc.scenes(tokenizer.vocab_size)
    parts = Parts(
        unet=sd_unet.UNet(sd_unet.scenes()),
        vae=sd_vae.AutoencoderKL(sd_vae.scenes()),
        text_encoder=sd_textenc.CLIPTextEncoder(text, tokenizer),
        scheduler=Scheduler(diffusion=DiffusionConfig(prediction="v")),
    )
    save_model(folder, parts)


def seconds(pipeline: Pipeline, request: Txt2Img) -> float:
    started = time.perf_counter()
    for _ in pipeline.txt2img(request):
        pass
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a folder; else one of random weights is made")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3, help="of A B B A")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.model or Path(temporary) / "model"
        if arguments.model is None:
            random_model(folder)
        pipeline = load_pipeline(folder, batch_invariant=True)
        ways = {"one at a time": pipeline, "together": replace(pipeline, batch_invariant=False)}
        request = Txt2Img(
            prompt="a cat on a mat",
            num_steps=arguments.steps,
            count=arguments.batch,
            batch_size=arguments.batch,
        )
        found: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            seconds(way, request)  # warms up
        for _ in range(arguments.rounds):
            for name in ("one at a time", "together", "together", "one at a time"):
                found[name].append(seconds(ways[name], request))
    medians = {name: statistics.median(values) for name, values in found.items()}
    for name, median in medians.items():
        listed = " ".join(f"{one:.2f}" for one in sorted(found[name]))
        print(f"{name}: {median:.2f} s a batch of {arguments.batch} ({listed})")
    print(f"one at a time / together: {medians['one at a time'] / medians['together']:.2f}")


if __name__ == "__main__":
    main()
