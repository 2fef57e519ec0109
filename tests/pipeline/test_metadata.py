"""What pictures say of how they were made: ours and other programs'."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sd_pipeline import (
    PipelineError,
    Record,
    Txt2Img,
    load_pipeline,
    parse_parameters,
    read_metadata,
    save_picture,
)
from sd_pipeline.images import pixel_hash

WEB_UI = (
    "a cat, (sitting:1.2)\non a mat\nNegative prompt: dog, ugly\n"
    "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 5, Size: 512x512, "
    'Model hash: 6ce0161689, Model: v1-5, Lora hashes: "a: 1, b: 2", Version: v1.10'
)


def png(path: Path, **texts: str) -> Path:
    info = PngInfo()
    for name, text in texts.items():
        info.add_itxt(name.replace("_", "-") if name == "sd_record" else name, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def test_our_pictures_tell_their_whole_record(tiny_model: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(tiny_model, device="cpu")
    (picture,) = pipeline.txt2img(Txt2Img(prompt='a cat, on: a "mat"\nдва', num_steps=2, seed=3))
    path = save_picture(picture, tmp_path / "one.png")
    read = read_metadata(path)
    assert read.program == "sdcli"
    assert read.record == picture.record
    assert read.pixels == pixel_hash(picture.image) == pixel_hash(Image.open(path))
    assert Record.from_values(json.loads(picture.record.json())) == picture.record


def test_our_pictures_say_that_a_machine_drew_them(tiny_model: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(tiny_model, device="cpu")
    (picture,) = pipeline.txt2img(Txt2Img(prompt="a cat", num_steps=1))
    path = save_picture(picture, tmp_path / "one.png")
    mark = ElementTree.fromstring(Image.open(path).text["XML:com.adobe.xmp"])
    assert "trainedAlgorithmicMedia" in ElementTree.tostring(mark, encoding="unicode")


def test_the_web_uis_parameters_are_read(tmp_path: Path) -> None:
    settings = read_metadata(png(tmp_path / "a.png", parameters=WEB_UI)).settings
    assert settings["Prompt"] == "a cat, (sitting:1.2)\non a mat"
    assert settings["Negative prompt"] == "dog, ugly"
    assert settings["Sampler"] == "DPM++ 2M"
    assert settings["Lora hashes"] == "a: 1, b: 2"
    assert (settings["Seed"], settings["Version"]) == ("5", "v1.10")


def test_the_web_uis_jpegs_are_read_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + WEB_UI.encode("utf-16-be")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert read_metadata(tmp_path / "a.jpg").settings["Seed"] == "5"


def test_what_we_write_for_the_web_ui_is_read_as_it_was_meant(tiny_model: Path) -> None:
    record = load_pipeline(tiny_model, name="a, b: c").resolve(
        Txt2Img(prompt="a cat\nand more", negative_prompt="dogs", seed=4, num_steps=3)
    )
    read = parse_parameters(record.parameters())
    assert (read["Prompt"], read["Negative prompt"]) == ("a cat\nand more", "dogs")
    assert (read["Model"], read["Seed"], read["Steps"]) == ("a, b: c", "4", "3")


def test_a_prompt_without_settings_is_a_prompt() -> None:
    assert parse_parameters("a cat: black, white")["Prompt"] == "a cat: black, white"


def test_comfyui_and_invokeai_are_read(tmp_path: Path) -> None:
    graph = {
        "3": {"class_type": "KSampler", "inputs": {"seed": 8, "steps": 20, "model": ["4", 0]}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
    }
    comfy = read_metadata(png(tmp_path / "c.png", prompt=json.dumps(graph)))
    assert comfy.program == "ComfyUI"
    assert comfy.settings == {
        "KSampler 3: seed": 8,
        "KSampler 3: steps": 20,
        "CLIPTextEncode 6: text": "a cat",
    }
    told = {"positive_prompt": "a cat", "seed": 9}
    invoke = read_metadata(png(tmp_path / "i.png", invokeai_metadata=json.dumps(told)))
    assert (invoke.program, invoke.settings) == ("InvokeAI", told)


@pytest.mark.parametrize(
    "texts",
    [
        {"sd_record": "{}"},
        {"sd_record": "[1]"},
        {"sd_record": "not json"},
        {"prompt": '{"1": 7}'},
        {"invokeai_metadata": "[" * 5000},
        {"other": "x"},
        {},
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path, texts: dict[str, str]) -> None:
    with pytest.raises(PipelineError, match=r"cannot be read|does not say") as caught:
        read_metadata(png(tmp_path / "a.png", **texts))
    assert str(caught.value).isprintable()


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no")
    with pytest.raises(PipelineError, match="no picture"):
        read_metadata(tmp_path / "a.png")
    with pytest.raises(PipelineError, match="does not exist"):
        read_metadata(tmp_path / "b.png")
