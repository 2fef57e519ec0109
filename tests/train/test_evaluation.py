"""What `sdcli eval` measures, by tiny models."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from finetuning import CAPTIONS, tiny_sdxl, write_clip, write_pictures

from sd_pipeline import load_model
from sd_train import DataConfig, PictureFolder, SampleSettings, SilentReporter, TrainError
from sd_train.drawn_folder import DrawnFolder
from sd_train.eval_subjects import Subject, held_out_examples, model_subject, open_all
from sd_train.evaluation import EvalConfig, evaluate
from sd_train.judges import Judges, load_clip, open_judges
from sd_train.timestep_bands import by_band
from tests.tiny_model import tiny_parts

CPU = torch.device("cpu")
QUICK = SampleSettings(steps=1, guidance_scale=1.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "cats", CAPTIONS * 2)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    return write_clip(folder)


@pytest.fixture
def subject(pictures: Path) -> Subject:
    parts = tiny_parts()
    for module in (parts.unet, parts.vae, parts.text_encoder):
        module.eval().requires_grad_(False)
    return model_subject(parts, "tiny", str(pictures), device=CPU, guidance_scale=1.0)


def measured(subject: Subject, judges: Judges, **config: Any) -> Any:
    values = {"samples": QUICK, "num_bands": 2, **config}
    return evaluate(subject, EvalConfig(**values), judges, SilentReporter(), lambda *_: None)


def test_all_that_can_be_is_measured_the_same_each_time(
    subject: Subject, clip: Path, tmp_path: Path
) -> None:
    judges = open_judges(None, clip, CPU)
    found = measured(subject, judges, num_drawn=7, out=tmp_path / "drawn", batch_size=3)
    assert found.loss == pytest.approx(sum(b.loss * b.num_looks for b in found.bands) / 12)
    assert [(band.first, band.last, band.num_looks) for band in found.bands] == [
        (0, 499, 6),
        (500, 999, 6),
    ]
    assert (found.num_drawn, found.num_real) == (7, 6)
    assert found.fid > 0
    assert found.kid is not None
    assert found.clip.score >= 0
    assert found.clip_of_real is not None
    assert "not comparable with published FIDs" in found.features
    assert found == measured(subject, judges, num_drawn=7, batch_size=3)
    assert found.fid != measured(subject, judges, num_drawn=7, batch_size=3, seed=1).fid
    lines = "\n".join(found.lines())
    assert "timesteps 500 to 999: " in lines
    assert f"FID {found.fid:.4f}" in lines
    assert json.loads(json.dumps(found.document()))["clip"]["score"] == found.clip.score
    # What was drawn can be judged again.
    again = replace(subject, denoising=None, drawn=open_all(str(tmp_path / "drawn"), 64))
    assert measured(again, judges).fid == pytest.approx(found.fid, rel=1e-4)


def test_a_loss_does_not_depend_on_how_many_are_looked_at_at_once(subject: Subject) -> None:
    examples = held_out_examples(subject, 5, SilentReporter())
    assert subject.denoising is not None
    done: list[int] = []
    few, many = (
        subject.denoising.held_out_losses(examples, chunk=chunk, repeats=3, on_look=done.append)
        for chunk in (1, 8)
    )
    assert torch.equal(few[0], many[0])
    torch.testing.assert_close(few[1], many[1], rtol=1e-4, atol=1e-5)
    assert done == [*range(1, 16), 8, 15]
    parts = [0], [1, 2, 3, 4]
    split = [{name: values[part] for name, values in examples[0].items()} for part in parts]
    apart = subject.denoising.held_out_losses(split, chunk=8, repeats=3)
    order = torch.argsort(apart[0])
    torch.testing.assert_close(apart[1][order], many[1], rtol=1e-4, atol=1e-5)


def test_sdxl_is_told_the_sizes_of_held_out_pictures(pictures: Path, tmp_path: Path) -> None:
    parts = load_model(tiny_sdxl(tmp_path / "sdxl"))
    xl = model_subject(parts, "xl", str(pictures), device=CPU, guidance_scale=1.0)
    (batch,) = held_out_examples(xl, 2, SilentReporter())
    assert batch["sizes"].tolist() == [[64, 72, 0, 4, 64, 64]] * 2
    assert measured(xl, Judges(), num_examples=2).loss > 0


def test_pictures_that_are_the_real_ones_have_no_distance(
    pictures: Path, clip: Path, subject: Subject
) -> None:
    same = replace(subject, denoising=None, drawn=open_all(str(pictures), 64))
    found = measured(same, open_judges("clip", clip, CPU))
    assert found.loss is None
    assert found.fid == pytest.approx(0, abs=1e-6)
    assert found.clip == found.clip_of_real


@pytest.fixture
def two(subject: Subject) -> Subject:
    return replace(subject, places=range(2))


def test_too_few_for_fid_is_told_before_anything_is_drawn(two: Subject, clip: Path) -> None:
    judges = open_judges(None, clip, CPU)
    with pytest.raises(TrainError, match=r"FID of 4 features needs more than 4 .* 3 drawn and 2"):
        measured(two, judges, measures=("fid",), num_drawn=3)
    found = measured(two, judges, num_drawn=3, num_examples=1)
    assert found.fid is None
    assert found.kid is not None
    assert found.notes[0].startswith("FID of 4 features needs more")


@pytest.mark.parametrize(
    ("measures", "words"),
    [
        (("kid",), "KID needs features; name a file of them, or a CLIP"),
        (("clip",), "the CLIP score needs a CLIP; name the folder of one"),
        (("psnr",), "measure 'psnr' is not known; use loss, fid, kid, clip"),
    ],
)
def test_a_measure_without_its_judge_is_told(
    subject: Subject, measures: tuple[str, ...], words: str
) -> None:
    with pytest.raises(TrainError, match=words):
        measured(subject, Judges(), measures=measures)


def test_drawn_pictures_have_no_loss(subject: Subject, pictures: Path) -> None:
    drawn = replace(subject, denoising=None, drawn=open_all(str(pictures), 64))
    with pytest.raises(TrainError, match="pictures have no loss; name a model or a run"):
        measured(drawn, Judges(), measures=("loss",))
    with pytest.raises(TrainError, match=r"nothing can be measured: .* name a file of them"):
        measured(drawn, Judges())


def test_what_is_no_clip_is_told(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="holds no CLIP"):
        load_clip(pictures, CPU)
    with pytest.raises(TrainError, match="features clip needs a CLIP"):
        open_judges("clip", None, CPU)
    with pytest.raises(TrainError, match="encoders of 4 and of 5 numbers"):
        load_clip(write_clip(tmp_path, 5), CPU)


def test_a_folder_that_is_not_empty_is_not_drawn_into(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(TrainError, match="is not an empty folder"):
        DrawnFolder(tmp_path)
    with pytest.raises(TrainError, match="num_bands is 0; it must be 1 or more"):
        EvalConfig(num_bands=0)


def test_bands_without_a_timestep_are_left_out() -> None:
    bands = by_band(
        torch.tensor([0, 9, 3]), torch.tensor([1.0, 5.0, 2.0]), num_timesteps=10, num_bands=3
    )
    found = [(band.first, band.last, band.loss) for band in bands]
    assert found == [(0, 2, 1.0), (3, 5, 2.0), (6, 9, 5.0)]
    assert by_band(torch.tensor([9]), torch.ones(1), num_timesteps=10, num_bands=2)[0].first == 5
    with pytest.raises(TrainError, match="11 bands of 10 timesteps cannot be made"):
        by_band(torch.tensor([0]), torch.ones(1), num_timesteps=10, num_bands=11)


def test_the_pictures_of_a_folder_stay_on_disk(pictures: Path) -> None:
    folder = open_all(str(pictures), 64)
    whole = PictureFolder(DataConfig(folder=str(pictures), size=64, holdout=0))
    assert not folder.config.in_memory
    assert torch.equal(folder.pictures([1]), whole.pictures([1]))
