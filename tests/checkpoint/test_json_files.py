import math
from pathlib import Path

import pytest

from sd_checkpoint import CheckpointError, load_config, load_json, save_json


def test_json_is_read_back_as_written(tmp_path: Path) -> None:
    value = {"name": "Ωmega", "widths": [1, 2], "none": None}
    save_json(tmp_path / "a" / "config.json", value)
    assert load_json(tmp_path / "a" / "config.json") == value
    assert "Ωmega" in (tmp_path / "a" / "config.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
def test_broken_json_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"a\.json (is not readable JSON|holds a JSON list)"):
        load_json(tmp_path / "a.json")


def test_a_value_that_json_lacks_leaves_the_old_file(tmp_path: Path) -> None:
    save_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        save_json(tmp_path / "a.json", {"a": object()})
    assert load_json(tmp_path / "a.json") == {"a": 1}


def test_an_infinity_passes_for_schedulers_hold_it(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"lambda_min_clipped": -Infinity}')
    assert load_json(tmp_path / "a.json") == {"lambda_min_clipped": -math.inf}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": NaN}', "NaN"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' stands there twice"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ('{"a": ' + "[" * 2_000_000, "a million"),
        ('{"a": ' + "9" * 5000 + "}", "5000 digits"),
    ],
)
def test_the_traps_of_json_are_refused_in_one_line(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(CheckpointError, match=why) as caught:
        load_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_json_of_more_than_64_mib_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(2**26 + 1)
    with pytest.raises(CheckpointError, match="67108864 are allowed"):
        load_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"auto_map": {"AutoModel": "evil--model.Net"}}, "auto_map"),
        ({"parts": [{"trust_remote_code": True}]}, "trust_remote_code"),
        ({"custom_pipeline": "evil"}, "custom_pipeline"),
        ({"vocab_file": "../../../etc/passwd"}, "leads out of its folder"),
        ({"parts": {"files": ["a", "..\\b"]}}, "leads out of its folder"),
    ],
)
def test_a_config_that_asks_for_code_or_leads_out_is_refused(
    tmp_path: Path, config: dict[str, object], why: str
) -> None:
    save_json(tmp_path / "config.json", config)
    with pytest.raises(CheckpointError, match=why):
        load_config(tmp_path / "config.json")


def test_where_the_maker_had_the_model_is_no_reason_to_refuse_a_config(tmp_path: Path) -> None:
    config = {"_name_or_path": "../sd15/unet", "trust_remote_code": False, "sample_size": 64}
    save_json(tmp_path / "config.json", config)
    assert load_config(tmp_path / "config.json") == config
