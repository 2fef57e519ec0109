"""Every family in every layout draws what diffusers draws, from the same files."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sd_pipeline import Txt2Img, load_pipeline, open_model, write_folder, write_single_file
from tests.parity import peers

# As many as tell a wrong sampler or condition apart; each (size, seeds, guidance, negative prompt).
CASES = (
    ((64, 64), [11, 12, 13], 5.0, peers.NEGATIVE),
    ((40, 56), [7], 5.0, None),
    ((64, 64), [3], 1.0, None),
)
STEPS = 3


class Family:
    """One family's files in all layouts, and the pictures of diffusers."""

    def __init__(self, name: str, folder: Path) -> None:
        pipeline = peers.FAMILIES[name](folder)
        peers.randomize(pipeline)
        self.root = folder
        self.folder = folder / "diffusers"
        pipeline.save_pretrained(self.folder)
        self.pictures = [
            peers.draw(
                pipeline, size=size, seeds=seeds, steps=STEPS, guidance=guidance, negative=negative
            )
            for size, seeds, guidance, negative in CASES
        ]


@pytest.fixture(scope="module", params=list(peers.FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(request.param, tmp_path_factory.mktemp(request.param))


def _as_saved(family: Family) -> Path:
    return family.folder


def _single(family: Family) -> Path:
    path = family.root / "model.safetensors"
    if not path.exists():
        write_single_file(path, open_model(family.folder))
    return path


def _of_another_tool(family: Family) -> Path:
    """The single file as others write it: without our metadata, all of it told by the keys."""
    path = family.root / "bare.safetensors"
    save_file(load_file(_single(family)), path)
    return path


def _ckpt(family: Family) -> Path:
    path = family.root / "model.ckpt"
    torch.save({"state_dict": load_file(_single(family)), "global_step": 470000}, path)
    return path


def _back(family: Family) -> Path:
    folder = family.root / "back"
    write_folder(folder, open_model(_single(family)))
    return folder


LAYOUTS: Mapping[str, Callable[[Family], Path]] = {
    "folder": _as_saved,
    "single file": _single,
    "single file of another tool": _of_another_tool,
    "ckpt": _ckpt,
    "folder made of the single file": _back,
}


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_it_draws_the_picture_that_diffusers_draws(family: Family, layout: str) -> None:
    pipeline = load_pipeline(LAYOUTS[layout](family), device="cpu")
    for (size, seeds, guidance, negative), theirs in zip(CASES, family.pictures, strict=True):
        request = Txt2Img(
            prompt=peers.PROMPT,
            negative_prompt=negative or "",
            width=size[0],
            height=size[1],
            num_steps=STEPS,
            sampler="euler",
            guidance_scale=guidance,
            seed=seeds[0],
            count=len(seeds),
            batch_size=len(seeds),
        )
        ours = np.stack([np.asarray(p.image) for p in pipeline.txt2img(request)]).astype(int)
        assert ours.std() > 5  # a picture, not a flat colour that anything would equal
        assert np.abs(ours - theirs).max() <= 1


def test_a_single_file_and_a_folder_go_into_each_other_bit_for_bit(family: Family) -> None:
    first = _single(family)
    _back(family)
    second = family.root / "again.safetensors"
    write_single_file(second, open_model(family.root / "back"))
    assert second.read_bytes() == first.read_bytes()
    write_folder(family.root / "back again", open_model(second))
    files = [p for p in (family.root / "back").rglob("*") if p.is_file()]
    assert len(files) > 8
    for file in files:
        other = family.root / "back again" / file.relative_to(family.root / "back")
        assert other.read_bytes() == file.read_bytes(), file


def test_what_we_write_opens_in_diffusers_and_draws_the_same(family: Family) -> None:
    import diffusers

    peer = diffusers.DiffusionPipeline.from_pretrained(_back(family))
    size, seeds, guidance, negative = CASES[0]
    again = peers.draw(
        peer, size=size, seeds=seeds, steps=STEPS, guidance=guidance, negative=negative
    )
    assert np.abs(again - family.pictures[0]).max() <= 1


def test_diffusers_opens_our_single_file_and_draws_the_same(family: Family) -> None:
    import diffusers

    kind = getattr(
        diffusers, type(diffusers.DiffusionPipeline.from_pretrained(family.folder)).__name__
    )
    peer = kind.from_single_file(_single(family), config=str(family.folder), local_files_only=True)
    size, seeds, guidance, negative = CASES[0]
    again = peers.draw(
        peer, size=size, seeds=seeds, steps=STEPS, guidance=guidance, negative=negative
    )
    assert np.abs(again - family.pictures[0]).max() <= 1


def test_half_precision_variants_of_a_folder_are_found(family: Family, tmp_path: Path) -> None:
    folder = shutil.copytree(family.folder, tmp_path / "model")
    for file in [*folder.rglob("*.safetensors")]:
        half = {key: t.half() if t.is_floating_point() else t for key, t in load_file(file).items()}
        save_file(half, file.with_name(f"{file.stem}.fp16.safetensors"), {"format": "pt"})
    model = open_model(folder, variant="fp16")
    assert next(iter(model.unet.tensors.values())).dtype == torch.float16
    assert next(iter(open_model(folder).unet.tensors.values())).dtype == torch.float32
