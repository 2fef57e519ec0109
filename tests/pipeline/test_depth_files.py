"""Files of depth maps: measurements, read to the last bit, or refused with the mend."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sd_pipeline import PipelineError, read_depth
from tests.pipeline.worst_pictures import RGB, linear_grey_profile, png

LEVELS = np.random.default_rng(0).integers(0, 65536, (6, 9), dtype=np.uint16)


def written(folder: Path, values: np.ndarray, name: str = "depth.png", **options: object) -> Path:
    Image.fromarray(values).save(folder / name, **options)
    return folder / name


def test_sixteen_bits_are_read_to_the_last(tmp_path: Path) -> None:
    for name in ("depth.png", "depth.tiff"):
        depth = read_depth(written(tmp_path, LEVELS, name))
        assert depth.mode == "F"
        assert np.array_equal(np.asarray(depth), LEVELS)


def test_thirty_two_bits_are_read_as_they_are(tmp_path: Path) -> None:
    for kind in (np.float32, np.int32):
        values = LEVELS.astype(kind) / kind(4) if kind is np.float32 else LEVELS.astype(kind)
        assert np.array_equal(np.asarray(read_depth(written(tmp_path, values, "a.tiff"))), values)


def test_grey_that_is_stored_as_colour_is_grey(tmp_path: Path) -> None:
    grey = (LEVELS >> 8).astype(np.uint8)
    image = Image.fromarray(grey)
    for mode in ("L", "LA", "RGB", "RGBA", "P"):
        image.convert(mode).save(tmp_path / f"{mode}.png")
        assert np.array_equal(np.asarray(read_depth(tmp_path / f"{mode}.png")), grey), mode


def test_a_profile_is_not_heeded_and_an_orientation_is(tmp_path: Path) -> None:
    grey = (LEVELS >> 8).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    for values in (grey, LEVELS):
        path = written(tmp_path, values, exif=exif, icc_profile=linear_grey_profile())
        assert np.array_equal(np.asarray(read_depth(path)), np.rot90(values, -1))


def test_what_is_no_measurement_is_refused_in_one_line_that_names_it(tmp_path: Path) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    clear = np.zeros((6, 9, 4), dtype=np.uint8)
    holes = np.full((6, 9), np.nan, dtype=np.float32)
    (tmp_path / "deep.png").write_bytes(png((1, 1), 16, RGB, [b"\1\2\1\2\1\2"]))
    (tmp_path / "cut.png").write_bytes(written(tmp_path, LEVELS).read_bytes()[:-20])
    for path, says in (
        (written(tmp_path, colours, "colour.png"), "is in colour; give one that is grey"),
        (written(tmp_path, clear, "clear.png"), "is transparent, which is no depth"),
        (written(tmp_path, holes, "holes.tiff"), "has values that are no numbers"),
        (tmp_path / "deep.png", "of which 8 can be read; save it as grey"),
        (tmp_path / "cut.png", "ends too early"),
        (tmp_path / "absent.png", "does not exist"),
    ):
        with pytest.raises(PipelineError, match=says) as caught:
            read_depth(path)
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)
