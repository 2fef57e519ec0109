"""Processes that share out weights, averages and optimizer train what one does with all of them."""

import signal
from pathlib import Path

import pytest
import torch
from PIL import Image
from together import assert_alike, run_together, scalars, together
from toy import Recorder, ToyTask, UNetToy, assert_same_checkpoint, config, in_one_part

from sd_checkpoint import Checkpoint, load_json
from sd_pipeline import load_unet
from sd_train import DenoiserTrainConfig, TrainError, export, export_run, run, train
from sd_train.config import TrainerConfig
from sd_train.manifest import damage_of
from sd_train.settings import parse_config
from sd_train.state import checkpoint_folder, list_checkpoints


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    train(ToyTask(), config(log_every=1), folder)
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    ends = together(2, folder, log_every=1, parallel="fsdp")
    assert ends == [(0, "finished", 8, None, 8), (1, "finished", 8, None, 0)]
    return folder


def test_two_processes_train_what_one_does(alone: Path, shared: Path) -> None:
    assert_alike(alone, shared)


def test_each_process_writes_its_part_and_the_model_is_whole(shared: Path) -> None:
    folder = checkpoint_folder(shared, 8)
    parts = [Checkpoint.open(path) for path in sorted(folder.glob("*.safetensors"))]
    assert [len(part["weights/net.0.weight"]) for part in parts] == [16, 16]
    assert [len(part["weights/net.4.bias"]) for part in parts] == [2, 1]
    slots = "ema/net.0.weight", "optimizer/net.0.weight/exp_avg"
    assert all(part[name].shape == (16, 3, 3, 3) for part in parts for name in slots)
    assert set(load_json(folder / "manifest.json")["files"]) == {
        path.name for path in folder.iterdir() if path.name != "manifest.json"
    }
    averages = Checkpoint.open(in_one_part(folder, shared / "whole") / "ema.safetensors")
    model = Checkpoint.open(shared / "model/net.safetensors")
    assert {f"net.{key}" for key in model} == set(averages)
    assert all((model[key] == averages[f"net.{key}"]).all() for key in model)


def test_more_processes_than_a_weight_has_rows_train_and_clip_as_one_does(tmp_path: Path) -> None:
    settings = {"log_every": 1, "accumulate": 4, "steps": 4, "clip_grad_norm": 0.1}
    train(ToyTask(), config(**settings), tmp_path / "alone")
    together(4, tmp_path / "four", parallel="fsdp", **settings)
    assert_alike(tmp_path / "alone", tmp_path / "four")


def test_a_run_goes_on_bit_for_bit_where_it_was_stopped(shared: Path, tmp_path: Path) -> None:
    settings = {"log_every": 1, "parallel": "fsdp"}
    ends = together(2, tmp_path, stop_at={1: 5}, **settings)
    assert [end[1:4] for end in ends] == [("stopped", 5, signal.SIGINT)] * 2
    assert damage_of(checkpoint_folder(tmp_path, 5)) is None
    together(2, tmp_path, **settings)
    assert_same_checkpoint(checkpoint_folder(shared, 8), checkpoint_folder(tmp_path, 8))


def test_what_two_have_begun_one_finishes_and_the_other_way_round(
    alone: Path, tmp_path: Path
) -> None:
    settings = {"log_every": 1, "parallel": "fsdp"}
    together(2, tmp_path / "fewer", stop_at={0: 3}, **settings)
    checkpoint = export(ToyTask(), config(), tmp_path / "fewer", tmp_path / "model")
    assert checkpoint == checkpoint_folder(tmp_path / "fewer", 3)
    train(ToyTask(), config(**settings), tmp_path / "fewer", resume=True)
    assert_alike(alone, tmp_path / "fewer")
    train(ToyTask(), config(log_every=1), tmp_path / "more", Recorder(3))
    together(2, tmp_path / "more", **settings)
    assert_alike(alone, tmp_path / "more")


@pytest.mark.parametrize("how", ["flipped", "gone", "without a manifest"])
def test_a_damaged_part_is_found_and_an_older_checkpoint_taken(
    shared: Path, tmp_path: Path, how: str
) -> None:
    settings = {"parallel": "fsdp", "keep_last": 2, "log_every": 1}
    together(2, tmp_path, stop_at={0: 6}, **settings)
    part = max(checkpoint_folder(tmp_path, 6).glob("*.safetensors"))
    if how == "gone":
        part.unlink()
    elif how == "without a manifest":
        part = part.with_name("manifest.json")
        part.unlink()
    else:
        data = bytearray(part.read_bytes())
        data[-5] ^= 1
        part.write_bytes(data)
    damage = damage_of(part.parent)
    assert damage is not None
    assert part.name in damage
    together(2, tmp_path, **settings)
    assert damage_of(checkpoint_folder(tmp_path, 8)) is None
    assert_same_checkpoint(checkpoint_folder(shared, 8), checkpoint_folder(tmp_path, 8))


def test_the_best_checkpoint_is_the_one_that_one_process_keeps(tmp_path: Path) -> None:
    settings = {"best_by": "mean", "keep_last": 1, "validate_every": 1}
    train(ToyTask(), config(**settings), tmp_path / "alone")
    together(2, tmp_path / "two", stop_at={0: 3}, parallel="fsdp", **settings)
    together(2, tmp_path / "two", parallel="fsdp", **settings)
    kept = [[one.name for one in list_checkpoints(tmp_path / name)] for name in ("alone", "two")]
    assert kept[0] == kept[1]


def test_muon_joins_its_matrices(tmp_path: Path) -> None:
    settings = {"log_every": 1, "optimizer": "muon", "steps": 3}
    train(ToyTask(), config(**settings), tmp_path / "alone")
    together(2, tmp_path / "two", parallel="fsdp", **settings)
    for ours, theirs in zip(scalars(tmp_path / "alone"), scalars(tmp_path / "two"), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)  # its steps are rounded to bfloat16


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-2)])
def test_a_unet_is_shared_out_and_what_learns_along_stays_whole(
    tmp_path: Path, precision: str, tolerance: float
) -> None:
    settings = {"log_every": 1, "learning_rate": 1e-4, "steps": 3, "precision": precision}
    train(UNetToy(), config(**settings), tmp_path / "alone")
    together(2, tmp_path / "two", parallel="fsdp", unet=True, **settings)
    for ours, theirs in zip(scalars(tmp_path / "alone"), scalars(tmp_path / "two"), strict=True):
        assert ours == pytest.approx(theirs, abs=tolerance)
    whole = in_one_part(checkpoint_folder(tmp_path / "two", 3), tmp_path / "whole", UNetToy())
    words = Checkpoint.open(whole / "weights.safetensors")["words.weight"]
    parts = checkpoint_folder(tmp_path / "two", 3).glob("*.safetensors")
    theirs = [one for one in map(Checkpoint.open, parts) if "weights/words.weight" in one]
    assert len(theirs) == 1, "one process writes what all have"
    assert (theirs[0]["weights/words.weight"] == words).all()


def test_a_dit_is_shared_out_and_its_run_makes_a_model_like_any_other(
    tmp_path: Path, tiny_model: Path
) -> None:
    pixels = torch.randint(256, (6, 4, 4, 3), generator=torch.manual_seed(0), dtype=torch.uint8)
    (tmp_path / "pictures").mkdir()
    for number, each in enumerate(pixels):
        picture = Image.fromarray(each.numpy()).resize((64, 64))
        picture.save(tmp_path / "pictures" / f"cat {number}.png")
    fields = {"channels": 32, "num_layers": 2, "num_heads": 2, "long_skips": True}
    small = {"hidden_size": 16, "intermediate_size": 32, "num_layers": 1, "num_heads": 2}
    trainer = {
        "steps": 3,
        "batch_size": 2,
        "accumulate": 2,
        "learning_rate": 1e-4,
        "log_every": 1,
        "device": "cpu",
        "parallel": "fsdp",
        "tensorboard": False,
    }
    settings = DenoiserTrainConfig.model_validate(
        {
            "trainer": trainer,
            "data": {"folder": str(tmp_path / "pictures"), "size": 64, "holdout": 2},
            "vae": str(tiny_model / "vae"),
            "arch": "dit",
            "unet": {"preset": "scenes", "fields": fields},
            "text": {
                "train": True,
                "preset": "scenes",
                "tokenizer": "captions",
                "context_length": 8,
                "fields": {**small, "max_positions": 8},
            },
            "samples": {"count": 1, "steps": 2},
            "export_dtype": "fp32",
        }
    )
    alone, two = tmp_path / "alone", tmp_path / "two"
    run(settings, alone)
    run_together(2, settings, two)
    for ours, theirs in zip(scalars(alone), scalars(two), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    ours, theirs = (load_unet(folder / "model/unet").state_dict() for folder in (alone, two))
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-4) for key in ours)
    export_run(settings, two, tmp_path / "exported")
    again = load_unet(tmp_path / "exported/unet").state_dict()
    assert all(torch.equal(again[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("whose", [0, 1])
def test_a_full_disk_of_one_is_one_line_of_all(tmp_path: Path, whose: int) -> None:
    ends = together(2, tmp_path, parallel="fsdp", file_limit=(10_000, whose))
    assert [end[:2] for end in ends] == [(0, "error"), (1, "error")]
    assert all("cannot write" in end[2] and f"process {whose}" in end[2] for end in ends)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_what_cannot_be_shared_out_is_told_in_one_line(tmp_path: Path) -> None:
    ends = together(2, tmp_path, parallel="fsdp", layers=False)
    assert [end[1] for end in ends] == ["error", "error"]
    assert all("set trainer.parallel = 'ddp'" in end[2] for end in ends)


@pytest.mark.parametrize(
    ("more", "words"),
    [({"precision": "fp16"}, "bf16 or fp32"), ({"optimizer": "adafactor"}, "muon")],
)
def test_settings_that_do_not_go_with_it_are_refused(more: dict[str, str], words: str) -> None:
    with pytest.raises(TrainError, match=words):
        parse_config(TrainerConfig, {"steps": 1, "parallel": "fsdp", **more}, origin="run.toml")
