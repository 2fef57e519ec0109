"""Masks say which parts of the pictures a denoiser learns."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shards import files_of, write_shard
from torch.nn import functional

from sd_train import DataConfig, PictureFolder, TrainError, VAETrainConfig
from sd_train.config import WeightingSettings
from sd_train.data_check import DataReport, check_pictures, find_pictures
from sd_train.data_summary import document, summarise, summary_lines
from sd_train.latents import DenoiserSource, TextTable, encode_pictures
from sd_train.prior import PriorSource
from sd_train.seeds import generator_for
from sd_train.tasks.denoising import Denoising
from tests.tiny_model import tiny_parts

SIZE = 64


def _levels(number: int, size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(number).integers(1, 256, (size[1], size[0]), dtype=np.uint8)
    return Image.fromarray(pixels)


def _write(folder: Path, *, size: tuple[int, int] = (SIZE, SIZE), as_alpha: bool = False) -> Path:
    """Write grey pictures with masks of their own levels, so that one tells where the other is."""
    folder.mkdir()
    for i in range(3):
        levels = _levels(i, size)
        picture = levels.convert("RGB")
        if as_alpha:
            picture.putalpha(levels)
        else:
            levels.save(folder / f"{i}.mask.png")
        picture.save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"picture {i}")
    return folder


def _open(place: Path, **settings: object) -> PictureFolder:
    values = {"folder": str(place), "size": SIZE, "holdout": 0, "background": (0, 0, 0)}
    return PictureFolder(DataConfig.model_validate(values | settings))


def _check(folder: Path, **settings: object) -> DataReport:
    config = DataConfig.model_validate({"folder": str(folder), "size": SIZE} | settings)
    return check_pictures(find_pictures(str(folder)), config)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_mask_is_cut_and_mirrored_as_its_picture_is(tmp_path: Path, in_memory: bool) -> None:
    folder = _open(_write(tmp_path / "a"), in_memory=in_memory, crop=24, flip=True)
    for n in range(4):
        batch = folder.masked([0, 1, 2], generator_for(0, "x", n))
        assert batch["mask"].shape == (3, 1, 24, 24)
        assert torch.equal(batch["mask"], batch["images"][:, :1].float() / 255)
        crops = folder.crops([0, 1, 2], generator_for(0, "x", n))
        assert torch.equal(crops, batch["images"])
    whole = folder.masked([1])
    assert torch.equal(whole["images"], folder.pictures([1]))
    assert torch.equal(whole["mask"], whole["images"][:, :1].float() / 255)


def test_a_mask_keeps_to_its_picture_when_that_is_resized(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    half = Image.new("L", (4 * SIZE, 2 * SIZE))
    half.paste(255, (2 * SIZE, 0, 4 * SIZE, 2 * SIZE))
    half.convert("RGB").save(tmp_path / "a/0.png")
    half.save(tmp_path / "a/0.mask.png")
    mask = _open(tmp_path / "a").masked([0])["mask"][0, 0]
    assert mask.unique().tolist() == [0, 1]
    assert (mask[:, SIZE // 2 :] == 1).all()
    assert mask.mean() == 0.5


def test_alpha_is_a_mask_where_that_is_asked_for(tmp_path: Path) -> None:
    _write(tmp_path / "a", as_alpha=True)
    Image.new("RGB", (SIZE, SIZE), "red").save(tmp_path / "a/opaque.png")
    assert "mask" not in _open(tmp_path / "a").masked([0])
    batch = _open(tmp_path / "a", alpha_is_mask=True).masked([0, 3])
    assert torch.equal(
        batch["mask"][0, 0], torch.from_numpy(np.array(_levels(0, (SIZE, SIZE)))) / 255
    )
    assert (batch["mask"][1] == 1).all()
    plain = _open(tmp_path / "a").pictures([0, 3])
    assert torch.equal(batch["images"], plain)


def test_a_mask_of_its_own_comes_before_alpha(tmp_path: Path) -> None:
    _write(tmp_path / "a", as_alpha=True)
    Image.new("L", (SIZE, SIZE), 255).save(tmp_path / "a/0.mask.png")
    mask = _open(tmp_path / "a", alpha_is_mask=True).masked([0, 1])["mask"]
    assert (mask[0] == 1).all()
    assert not (mask[1] == 1).all()


def test_shards_have_masks_too(tmp_path: Path) -> None:
    folder = _write(tmp_path / "a")
    write_shard(tmp_path / "0.tar", files_of(folder))
    packed, plain = _open(tmp_path / "0.tar", in_memory=False), _open(folder, in_memory=False)
    assert packed.captions == plain.captions
    for name, values in plain.masked([0, 1, 2]).items():
        assert torch.equal(values, packed.masked([0, 1, 2])[name])
    assert packed.fingerprint() == plain.fingerprint()


@pytest.mark.parametrize("in_memory", [True, False])
def test_caches_follow_the_masks(tmp_path: Path, in_memory: bool) -> None:
    folder = _write(tmp_path / "a")
    before = _open(folder, in_memory=in_memory).fingerprint()
    assert _open(folder, in_memory=in_memory).fingerprint() == before
    _levels(9, (SIZE, SIZE)).save(folder / "1.mask.png")
    assert _open(folder, in_memory=in_memory).fingerprint() != before
    alpha = _write(tmp_path / "b", as_alpha=True)
    prints = {
        _open(alpha, in_memory=in_memory, alpha_is_mask=each).fingerprint()
        for each in (True, False)
    }
    assert len(prints) == 2


def test_masks_that_cannot_be_used_leave_their_picture_out_by_name(tmp_path: Path) -> None:
    folder = _write(tmp_path / "a")
    _levels(0, (SIZE, 32)).save(folder / "0.mask.png")
    Image.new("L", (SIZE, SIZE)).save(folder / "1.mask.png")
    (folder / "2.mask.png").write_bytes(b"")
    _levels(0, (SIZE, SIZE)).save(folder / "orphan.mask.png")
    clear = Image.new("RGBA", (SIZE, SIZE))
    clear.save(folder / "clear.png")
    reasons = {Path(i.what).name: i.reason for i in _check(folder, alpha_is_mask=True).skipped}
    assert reasons == {
        "0.png": "has a mask of 64 x 32, but is 64 x 64; make them equal",
        "1.png": "has a mask all black, so nothing of it would be learnt; leave it out or correct "
        "it",
        "2.png": "has a mask that is empty (0 bytes); fetch it again or delete it",
        "clear.png": "is transparent all over, so nothing of it would be learnt; leave it out or "
        "correct it",
        "orphan.mask.png": "a mask without a picture; rename it to learn from it, not to end in "
        ".mask.png",
    }
    assert [picture.entry.path.name for picture in _check(folder).used] == ["clear.png"]


def test_masks_are_named_and_counted(tmp_path: Path) -> None:
    report = _check(_write(tmp_path / "a"))
    masks = [Path(item.what).name for item in report.others if item.kind == "mask"]
    assert masks == ["0.mask.png", "1.mask.png", "2.mask.png"]
    assert "masks: beside 3 of 3 pictures" in summary_lines(summarise(report), report)
    rows = document(report, summarise(report))["used"]
    assert [Path(row["mask"]).name for row in rows] == masks


def test_a_mask_weighs_the_loss_of_each_latent() -> None:
    denoising = Denoising(tiny_parts(), WeightingSettings())
    text = torch.randn(2, 12, 32, generator=generator_for(0, "text", 0))
    latents = torch.randn(2, 4, 8, 8, generator=generator_for(0, "latents", 0))
    batch = {"mean": latents, "std": latents, "hidden_states": text}

    def loss(**more: torch.Tensor) -> torch.Tensor:
        losses, _ = denoising.losses({**batch, **more}, generator_for(0, "loss", 0))
        return losses.detach()

    whole = loss()
    assert torch.equal(loss(mask=torch.ones(2, 1, 8, 8)), whole)
    assert (loss(mask=torch.zeros(2, 1, 8, 8)) == 0).all()
    mask = torch.rand(2, 1, 64, 64, generator=generator_for(0, "mask", 0))
    torch.testing.assert_close(loss(mask=mask) + loss(mask=1 - mask), whole)
    shrunk = functional.avg_pool2d(mask, 8)
    torch.testing.assert_close(loss(mask=mask), loss(mask=shrunk))
    # Each picture has its own: the first one's loss knows nothing of the second one's mask.
    first = torch.stack([mask[0], torch.zeros_like(mask[0])])
    torch.testing.assert_close(loss(mask=first), torch.stack([loss(mask=mask)[0], whole[1] * 0]))
    held_out = denoising.held_out_loss([{**batch, "mask": torch.zeros(2, 1, 8, 8)}], chunk=2)
    assert held_out == 0


def test_cached_latents_come_with_the_masks_that_fresh_ones_have(tmp_path: Path) -> None:
    vae, folder = tiny_parts().vae, _open(_write(tmp_path / "a"))
    found = encode_pictures(vae, folder, range(3))
    side = SIZE // vae.config.downsampling
    assert found["mask"].shape == (3, 1, side, side)
    fresh = functional.avg_pool2d(folder.masked([0, 1, 2])["mask"], vae.config.downsampling)
    torch.testing.assert_close(found["mask"], fresh)
    source = DenoiserSource(folder, found, _text(3))
    batch = source.batch([2, 0], generator_for(0, "x", 0))
    assert torch.equal(batch["mask"], found["mask"][[2, 0]])
    assert torch.equal(source.fixed([1])["mask"], found["mask"][[1]])


def test_all_of_a_picture_without_a_mask_is_learnt_beside_one_that_has_some(
    tmp_path: Path,
) -> None:
    _write(tmp_path / "masked")
    _write(tmp_path / "plain")
    for mask in (tmp_path / "plain").glob("*.mask.png"):
        mask.unlink()
    (tmp_path / "masked/1.mask.png").unlink()
    masked, plain = (
        DenoiserSource(_open(tmp_path / name), {}, _text(3)) for name in ("masked", "plain")
    )
    assert (masked.fixed([1])["mask"] == 1).all()
    assert "mask" not in plain.fixed([0])
    for one, other in ((masked, plain), (plain, masked)):
        mask = PriorSource(one, other).batch([0, 2], generator_for(0, "x", 0))["mask"]
        assert mask.shape == (4, 1, SIZE, SIZE)
        assert (mask[2:] if one is masked else mask[:2]).eq(1).all()


def test_an_autoencoder_learns_whole_pictures(tmp_path: Path) -> None:
    data = {"folder": str(tmp_path), "alpha_is_mask": True}
    with pytest.raises(ValueError, match=r"leave data\.alpha_is_mask out"):
        VAETrainConfig.model_validate({"trainer": {"steps": 1}, "data": data})


def test_a_mask_that_went_away_behind_a_run_is_named(tmp_path: Path) -> None:
    folder = _open(_write(tmp_path / "a"), in_memory=False)
    (tmp_path / "a/1.mask.png").unlink()
    with pytest.raises(TrainError, match=r"1\.png has a mask that does not exist"):
        folder.pictures([1])


def _text(count: int) -> TextTable:
    rows = torch.arange(count).unsqueeze(1)
    return TextTable(values={"token_ids": torch.zeros(count + 1, 4)}, rows=rows)
