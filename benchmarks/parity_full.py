"""Compare our pictures with diffusers' at full size, for every layout, and print the table.

    uv run python benchmarks/parity_full.py sd15 --steps 4
    uv run python benchmarks/parity_full.py sd21 --steps 4 --folder /scratch

Weights are random, in float32 on the CPU: what is compared is arithmetic, not art. Wants 15 GB of
disk in `--folder` and as much memory as two models take. Exits with 1 when a picture differs by
more than one level of 255.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from rich.console import Console
from rich.table import Table

import sd_textenc
import sd_unet
import sd_vae
from sd_pipeline import Txt2Img, load_pipeline, open_model, write_single_file

PROMPT, NEGATIVE = "a photograph of an astronaut riding a horse", "blurry"


@dataclass(frozen=True, kw_only=True)
class Case:
    width: int
    height: int
    count: int
    guidance: float
    negative: str | None

    def __str__(self) -> str:
        negative = ", negative prompt" if self.negative else ""
        return (
            f"{self.width}x{self.height}, batch {self.count}, guidance {self.guidance:g}{negative}"
        )


CASES = (
    Case(width=512, height=512, count=1, guidance=7.5, negative=NEGATIVE),
    Case(width=320, height=448, count=3, guidance=7.5, negative=None),
    Case(width=320, height=448, count=1, guidance=1.0, negative=None),
)


def peer(family: str, folder: Path) -> Any:
    """Build diffusers' pipeline at full size, every weight random."""
    torch.manual_seed(0)
    second = family == "sd21"
    unet = (sd_unet.sd21() if second else sd_unet.sd15()).to_diffusers()
    text = (sd_textenc.vit_h14() if second else sd_textenc.vit_l14()).to_diffusers()
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    table = sd_textenc.clip_tokenizer("!" if second else "<|endoftext|>")
    for name, content in table.files().items():
        (tokenizer / name).write_text(content, encoding="utf-8")
    pipeline = diffusers.StableDiffusionPipeline(
        unet=diffusers.UNet2DConditionModel.from_config(unet),
        vae=diffusers.AutoencoderKL.from_config(sd_vae.sd15().to_diffusers()),
        text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(**text)).eval(),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(tokenizer),
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction" if second else "epsilon",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw_theirs(pipeline: Any, case: Case, steps: int) -> np.ndarray:
    images = pipeline(
        [PROMPT] * case.count,
        negative_prompt=None if case.negative is None else [case.negative] * case.count,
        width=case.width,
        height=case.height,
        num_inference_steps=steps,
        guidance_scale=case.guidance,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in range(case.count)],
        output_type="np",
    ).images
    return (images * 255).round().astype(int)


def draw_ours(path: Path, case: Case, steps: int) -> np.ndarray:
    request = Txt2Img(
        prompt=PROMPT,
        negative_prompt=case.negative or "",
        width=case.width,
        height=case.height,
        num_steps=steps,
        sampler="euler",
        guidance_scale=case.guidance,
        count=case.count,
        batch_size=case.count,
    )
    pictures = load_pipeline(path, device="cpu", dtype="fp32").txt2img(request)
    return np.stack([np.asarray(picture.image) for picture in pictures]).astype(int)


def layouts(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield each layout and its place, made of the one before."""
    yield "diffusers folder", folder / "model"
    single = folder / "model.safetensors"
    write_single_file(single, open_model(folder / "model"))
    yield "single file", single
    from safetensors.torch import load_file

    ckpt = folder / "model.ckpt"
    torch.save({"state_dict": load_file(single), "global_step": 0}, ckpt)
    yield "ckpt", ckpt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=("sd15", "sd21"))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=None, help="for the files; deleted after")
    arguments = parser.parse_args()
    table = Table("layout", "picture", "largest difference", "pixels that differ", "seconds")
    worst = 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        pipeline = peer(arguments.family, folder)
        pipeline.save_pretrained(folder / "model")
        theirs = [draw_theirs(pipeline, case, arguments.steps) for case in CASES]
        del pipeline
        for layout, path in layouts(folder):
            for case, expected in zip(CASES, theirs, strict=True):
                started = time.perf_counter()
                difference = np.abs(draw_ours(path, case, arguments.steps) - expected)
                seconds = time.perf_counter() - started
                worst = max(worst, int(difference.max()))
                differing = f"{(difference > 0).mean():.3%}"
                table.add_row(
                    layout, str(case), f"{difference.max()}/255", differing, f"{seconds:.0f}"
                )
    Console(width=140).print(table)
    return 1 if worst > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
