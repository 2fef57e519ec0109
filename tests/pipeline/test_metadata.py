"""What pictures say of how they were made: ours and other programs'."""

import json
import time
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
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
from sd_pipeline.exif import with_comment
from sd_pipeline.images import pixel_hash
from sd_pipeline.picture_file import picture_bytes
from sd_pipeline.picture_format import FORMATS, PictureFormat
from sd_pipeline.xmp import packet

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


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + WEB_UI.encode("utf-16-be"),
        b"UNICODE\0" + WEB_UI.encode("utf-16-le"),
        b"UNICODE\0\xfe\xff" + WEB_UI.encode("utf-16-be"),
        b"UNICODE\0\xff\xfe" + WEB_UI.encode("utf-16-le"),
        b"UNICODE\0" + WEB_UI.encode(),
        b"ASCII\0\0\0" + WEB_UI.encode(),
        bytes(8) + WEB_UI.encode() + bytes(3),
        WEB_UI.encode(),
        WEB_UI,  # of type ASCII
    ],
)
def test_the_web_uis_text_is_read_from_exif_however_a_program_writes_it(
    tmp_path: Path, suffix: str, comment: bytes | str
) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    Image.new("RGB", (8, 8)).save(tmp_path / f"a.{suffix}", exif=exif)
    read = read_metadata(tmp_path / f"a.{suffix}")
    assert read.program == "the web UI"
    assert read.settings["Prompt"] == "a cat, (sitting:1.2)\non a mat"
    assert (read.settings["Seed"], read.settings["Version"]) == ("5", "v1.10")


def test_a_prompt_of_half_zero_characters_is_read_in_the_right_order(tmp_path: Path) -> None:
    text = WEB_UI.replace("a cat", "Ā一" * 200)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=with_comment(text))
    assert read_metadata(tmp_path / "a.jpg").settings["Prompt"].startswith("Ā一Ā一")


@pytest.mark.parametrize("comment", [b"", bytes(8), b"ASCII\0\0\0 on holiday ", b"UNICODE\0\xd8"])
def test_a_photographs_comment_is_not_taken_for_the_web_uis(tmp_path: Path, comment: bytes) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(PipelineError, match="does not say how it was made"):
        read_metadata(tmp_path / "a.jpg")


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
    for key in ("invokeai_metadata", "sd-metadata"):
        invoke = read_metadata(png(tmp_path / "i.png", **{key: json.dumps(told)}))
        assert (invoke.program, invoke.settings) == ("InvokeAI", told)
    oldest = read_metadata(png(tmp_path / "d.png", Dream='"a cat" -s50 -S42'))
    assert (oldest.program, oldest.settings) == ("InvokeAI", {"Dream": '"a cat" -s50 -S42'})


def test_comfyuis_webp_and_its_graphs_without_a_prompt_are_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110] = 'prompt:{"3": {"class_type": "KSampler", "inputs": {"seed": 8}}}'
    exif[0x010F] = 'workflow:{"nodes": []}'
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp", exif=exif)
    assert read_metadata(tmp_path / "a.webp").settings == {"KSampler 3: seed": 8}
    node = {"id": 6, "type": "CLIPTextEncode", "widgets_values": ["a cat"]}
    workflow = json.dumps({"nodes": [node, {"id": 7, "type": "Note"}]})
    read = read_metadata(png(tmp_path / "w.png", workflow=workflow))
    assert (read.program, read.settings) == ("ComfyUI", {"CLIPTextEncode 6": ["a cat"]})


def test_what_comfyui_writes_and_json_has_not_is_null(tmp_path: Path) -> None:
    graph = '{"1": {"class_type": "A", "inputs": {"x": NaN, "y": "is NaN, \\"NaN\\""}}}'
    assert read_metadata(png(tmp_path / "a.png", prompt=graph)).settings == {
        "A 1: x": None,
        "A 1: y": 'is NaN, "NaN"',
    }


@pytest.mark.parametrize(
    "texts",
    [
        {"sd_record": "{}"},
        {"sd_record": "[1]"},
        {"sd_record": "not json"},
        {"prompt": '{"1": 7}'},
        {"invokeai_metadata": "[" * 5000},
        {"invokeai_metadata": '{"a": NaN}'},
        {"invokeai_metadata": '{"a": 1e999}'},
        {"invokeai_metadata": '{"a":' * 100 + "1" + "}" * 100},
        {"invokeai_metadata": "[]"},
        {"invokeai_metadata": '{"a": [' + "[]," * 2**20 + "1]}"},
        {"workflow": '{"nodes": [1]}'},
        {"parameters": "a" * (2**24 + 1)},
        {"other": "x"},
        {},
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path, texts: dict[str, str]) -> None:
    with pytest.raises(PipelineError, match=r"can(not)? be read|does not say") as caught:
        read_metadata(png(tmp_path / "a.png", **texts))
    assert str(caught.value).isprintable()


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no")
    with pytest.raises(PipelineError, match="no picture"):
        read_metadata(tmp_path / "a.png")
    with pytest.raises(PipelineError, match="does not exist"):
        read_metadata(tmp_path / "b.png")


@pytest.fixture(scope="module")
def record(tiny_model: Path) -> Record:
    pipeline = load_pipeline(tiny_model, device="cpu")
    return pipeline.resolve(Txt2Img(prompt="a cat", num_steps=3))


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_cut_off_anywhere_is_refused(
    record: Record, tmp_path: Path, name: Any
) -> None:
    whole = picture_bytes(Image.new("RGB", (8, 8)), record, PictureFormat(name=name))
    path = tmp_path / "a"
    path.write_bytes(whole)
    assert read_metadata(path).record == record
    # PNG's last chunk is empty: its name ends the file, whatever comes of its checksum.
    for length in range(0, len(whole) - 4, 13):
        path.write_bytes(whole[:length])
        with pytest.raises(PipelineError, match="no picture that can be read") as caught:
            read_metadata(path)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_with_a_spoilt_byte_is_read_or_refused(
    record: Record, tmp_path: Path, name: Any
) -> None:
    whole = picture_bytes(Image.new("RGB", (8, 8)), record, PictureFormat(name=name))
    path = tmp_path / "a"
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x95]) + whole[place + 1 :])
        told = ""
        try:
            read_metadata(path)
        except PipelineError as error:
            told = str(error)
        assert told.isprintable()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("prompt", value) for value in (5, None, ["a"], "\ud800")),
        *(("width", value) for value in ("64", 6.5, True, [64])),
        *(("guidance", value) for value in (None, [], {"interval": 1}, {"scale": "7"})),
        *(("process", value) for value in ([], {"prediction": "w"}, {"beta_start": True})),
        *(("versions", value) for value in ([], {"torch": 2})),
        ("guidance_scale", "a lot"),
        ("use_ema", 1),
        ("edit", []),
        ("pixels", 7),
        ("encoding", {"name": "bmp"}),
        ("unheard_of", 1),
    ],
)
def test_a_record_with_a_wrong_value_is_refused(
    record: Record, tmp_path: Path, field: str, value: object
) -> None:
    values = {**json.loads(record.json()), field: value}
    with pytest.raises(PipelineError, match="its sd-record cannot be read") as caught:
        read_metadata(png(tmp_path / "a.png", sd_record=json.dumps(values)))
    assert str(caught.value).isprintable()


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def with_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG that has a further chunk before its end."""
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="PNG")
    return buffer.getvalue()[:-12] + chunk(kind, data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "make",
    [
        lambda text: with_chunk(b"zTXt", b"prompt\0\0" + text),
        lambda text: with_chunk(b"iTXt", b"sd-record\0\1\0\0\0" + text),
    ],
)
def test_a_text_that_grows_without_end_takes_no_memory(
    tmp_path: Path, make: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "a.png").write_bytes(make(zlib.compress(bytes(100 * 2**20), 9)))
    tracemalloc.start()
    try:
        with pytest.raises(PipelineError, match="grows beyond 16,777,216 bytes"):
            read_metadata(tmp_path / "a.png")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * 2**20


def test_compressed_and_plain_texts_are_read(tmp_path: Path) -> None:
    text = WEB_UI.replace("a cat", "un été").encode("latin-1")
    for kind, data in ((b"zTXt", b"\0" + zlib.compress(text)), (b"tEXt", text)):
        (tmp_path / "a.png").write_bytes(with_chunk(kind, b"parameters\0" + data))
        assert read_metadata(tmp_path / "a.png").settings["Prompt"].startswith("un été")


def test_the_pixels_of_a_png_are_not_looked_at(record: Record, tmp_path: Path) -> None:
    # 2^31 x 2^31 pixels, as the header says: no decoder may be asked for them.
    header = chunk(b"IHDR", bytes.fromhex("7fffffff7fffffff0802000000"))
    text = chunk(b"iTXt", b"sd-record\0\0\0\0\0" + record.json().encode())
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + text + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    assert read_metadata(tmp_path / "a.png").record == record


def test_the_pixels_of_a_webp_are_not_looked_at(record: Record, tmp_path: Path) -> None:
    # 2^24 x 2^24 pixels, as the header says, and none behind it.
    parts = {b"VP8X": b"\x0c" + b"\0" * 3 + b"\xff" * 6, b"XMP ": packet(record.json()).encode()}
    chunks = b"".join(
        name + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)
        for name, data in parts.items()
    )
    (tmp_path / "a.webp").write_bytes(
        b"RIFF" + (4 + len(chunks)).to_bytes(4, "little") + b"WEBP" + chunks
    )
    assert read_metadata(tmp_path / "a.webp").record == record


@pytest.mark.parametrize(
    "spoil",
    [
        lambda xmp: xmp.replace("<x:", '<!DOCTYPE x [<!ENTITY a "aaaa">]><x:', 1),
        lambda xmp: xmp.replace("</sd:record>", ""),
        lambda xmp: xmp.replace('{"', '{"" '),
    ],
)
def test_spoilt_xmp_is_refused(record: Record, tmp_path: Path, spoil: Callable[[str], str]) -> None:
    xmp = spoil(packet(record.json())).encode()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp", xmp=xmp)
    with pytest.raises(PipelineError, match=r"can(not)? be read"):
        read_metadata(tmp_path / "a.webp")


def test_a_record_is_found_in_xmp_that_another_program_wrote_anew(
    record: Record, tmp_path: Path
) -> None:
    root = ElementTree.fromstring(packet(record.json()))
    description = root.find(".//{*}Description")
    assert description is not None
    (element,) = description
    description.remove(element)
    description.set(element.tag, element.text or "")
    for xmp in (packet(record.json()), ElementTree.tostring(root, encoding="unicode")):
        Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", xmp=xmp.encode())
        assert read_metadata(tmp_path / "a.jpg").record == record


@pytest.mark.parametrize("line", ["a" * 10**6, " " * 10**6, 'a:"' * 10**5, "ab: c, " * 10**5])
def test_a_long_line_is_read_in_time_that_grows_with_its_length(line: str) -> None:
    started = time.perf_counter()
    parse_parameters(f"a cat\n{line}")
    assert time.perf_counter() - started < 5
