"""Whatever is asked for survives: written into a file, read back, asked for again."""

from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from sd_pipeline import (
    Img2Img,
    Inpaint,
    Outpaint,
    Pipeline,
    PipelineError,
    Record,
    Txt2Img,
    load_pipeline,
    parse_parameters,
    read_image,
    read_metadata,
)
from sd_pipeline.images import FITS
from sd_pipeline.picture import save_picture
from sd_pipeline.picture_file import picture_bytes
from sd_pipeline.picture_format import FORMATS, FormatName, PictureFormat
from sd_pipeline.request import RESIZES, SEAMLESS, Blend
from sd_sampler import (
    SAMPLERS,
    SIGMA_SCHEDULES,
    GuidanceOptions,
    SamplerError,
    parse_sampler,
    parse_schedule,
)
from sdcli.commands.records import request_of
from sdcli.main import run

# What a reader of one of the places that a text is written to might trip over.
SNAGS = (
    *("\nNegative prompt: a dog", "Negative prompt:", "\nSteps: 20, Sampler: Euler, Seed: 1"),
    *("Steps: 1, Sampler: x, CFG scale: 2\n", '"', "'", "\\", "\\u0041", "\n", "\r\n", "\t", " "),
    *("\0", "\x1b[31m", "\x7f", "\x85", "\u2028", "\ufeff", "\ufffe", "\uffff", "\U0010ffff"),
    *(
        "🐈‍⬛",
        "日一",
        "Ā" * 40,
        "é",
        "</sd:record>",
        "]]>",
        "&amp;",
        "<!DOCTYPE",
        "<?xpacket end?>",
    ),
    *("a cat", "(b:1.2)", "[a:b:0.5]", "NaN", "{}", "-1", "UNICODE\0"),
)
TEXTS = st.text(max_size=200) | st.lists(st.sampled_from(SNAGS), max_size=8).map("".join)
SHARES = st.floats(0, 1)
GUIDANCE = st.builds(
    GuidanceOptions,
    rescale=SHARES,
    interval=st.lists(SHARES, min_size=2, max_size=2).map(lambda ends: tuple(sorted(ends))),
    projected=st.booleans(),
    parallel=SHARES,
    norm_limit=st.floats(min_value=0),
    momentum=st.floats(-1, 1),
    threshold=st.none() | st.floats(1, 100),
    pag_scale=st.just(0.0) | st.floats(0, 100),
    pag_adaptive_scale=SHARES,
)
SEEDS = st.integers(0, 2**63 - 5) | st.just(2**63 - 5)
BLENDS = st.none() | st.builds(
    Blend, share=SHARES, prompt=st.none() | TEXTS.filter(str.strip), seed=st.none() | SEEDS
)
# What edits begin with; a hole for the mask, and one in the second picture itself.
PICTURES = (Image.new("RGB", (48, 40), (200, 30, 40)), Image.new("RGBA", (32, 56), (0, 90, 9, 255)))
PICTURES[1].paste((0, 0, 0, 0), (8, 8, 24, 40))
MASK = Image.new("L", PICTURES[0].size)
MASK.paste(255, (16, 0, 40, 32))
FEW, MANY = settings(max_examples=60, deadline=None), settings(max_examples=1000, deadline=None)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request, and which of its batch's pictures is looked at."""

    request: Txt2Img
    index: int
    model: str


@st.composite
def edited(draw: st.DrawFn, request: Txt2Img) -> Txt2Img:
    """Make an edit of any kind of a request, or leave it."""
    shared = {name: getattr(request, name) for name in Txt2Img.__dataclass_fields__}
    shared |= {"strength": draw(st.floats(0.001, 1)), "fit": draw(st.sampled_from(FITS))}
    sides = {"width": None, "height": None}
    picture, blur = draw(st.sampled_from(PICTURES)), draw(st.floats(0, 64))
    match draw(st.sampled_from(("txt2img", "img2img", "inpaint", "outpaint"))):
        case "img2img":
            own = sides if draw(st.booleans()) else {}
            resize = draw(st.sampled_from(RESIZES))
            return Img2Img(**{**shared, **own}, image=picture, resize=resize)
        case "inpaint":
            mask = MASK if picture is PICTURES[0] else None
            margin = draw(st.none() | st.integers(0, 1024))
            keeps, own = draw(st.booleans()), sides if draw(st.booleans()) else {}
            return Inpaint(
                **{**shared, **own}, image=picture, mask=mask, mask_blur=blur, margin=margin,
                keep_outside=keeps,
            )  # fmt: skip
        case "outpaint":
            room = draw(st.lists(st.integers(0, 24), min_size=4, max_size=4).filter(any))
            left, top, right, bottom = room
            return Outpaint(
                **{**shared, **sides}, image=picture, mask_blur=blur, left=left, top=top,
                right=right, bottom=bottom,
            )  # fmt: skip
    return request


@st.composite
def asked(draw: st.DrawFn, steps: int = 150, smallest: int = 8, largest: int = 8192) -> Asked:
    scale = draw(st.floats(1, 100) | st.integers(1, 30).map(float))
    count = draw(st.integers(1, 4))
    sides = st.integers(smallest // 8, largest // 8).map(lambda number: 8 * number)
    plain = Txt2Img(
        prompt=draw(TEXTS.filter(str.strip)),
        negative_prompt=draw(TEXTS),
        width=draw(sides),
        height=draw(sides),
        num_steps=draw(st.integers(1, steps)),
        sampler=draw(st.sampled_from(sorted(SAMPLERS))),
        schedule=draw(st.sampled_from(SIGMA_SCHEDULES)),
        guidance_scale=scale,
        guidance=replace(draw(GUIDANCE), scale=scale),
        seed=draw(SEEDS),
        count=count,
        batch_size=count,
        blend=draw(BLENDS),
        seamless=draw(st.sampled_from(SEAMLESS)),
        clip_skip=draw(st.integers(0, 1)),
    )
    return Asked(
        request=draw(edited(plain)),
        index=draw(st.integers(0, count - 1)),
        model=draw(st.text(max_size=30)),
    )


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, name=str(tiny_model), device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    for number, picture in enumerate((*PICTURES, MASK)):
        picture.save(folder / f"from-{number}.png")
    return folder


def begun_with(folder: Path, request: Txt2Img) -> dict[str, Path]:
    """Return the files that a picture is made from, by the names that `replay` has for them."""
    files: dict[str, Path] = {}
    if isinstance(request, Img2Img):
        files["image"] = folder / f"from-{PICTURES.index(request.image)}.png"
    if isinstance(request, Inpaint) and request.mask is not None:
        files["mask"] = folder / "from-2.png"
    return files


def record_of(pipeline: Pipeline, one: Asked) -> Record:
    try:
        record = pipeline.resolve(one.request)
    except SamplerError:  # some ladders have no room for so many steps
        assume(False)
    seed, count = one.request.seed, one.request.count
    record = replace(record, batch_seed=seed, batch_size=count, model=one.model)
    return record.with_seed(seed + one.index)


def check_survival(pipeline: Pipeline, folder: Path, one: Asked) -> None:
    record = record_of(pipeline, one)
    for name in FORMATS:
        path = folder / f"a{PictureFormat(name=name).suffix}"
        path.write_bytes(picture_bytes(Image.new("RGB", (8, 8)), record, PictureFormat(name=name)))
        read = read_metadata(path).record
        assert read == record
        files = begun_with(folder, one.request)
        again = request_of(read, files.get("image"), files.get("mask"))
        # A model may serve a sampler on another ladder than the one that was asked for.
        changes = {"schedule": record.schedule}
        changes |= {what: read_image(file) for what, file in files.items()}
        assert again == replace(one.request, **changes)


def carried(text: str) -> bool:
    """Tell whether the web UI's text can hold a prompt: see `Record.parameters`."""
    lines = text.split("\n")
    plain = text == text.strip() and "\0" not in text
    return plain and not any(line.startswith("Negative prompt:") for line in lines)


def check_web_ui_text(pipeline: Pipeline, one: Asked) -> None:
    record = record_of(pipeline, one)
    read = parse_parameters(record.parameters())
    prompts = record.prompt, record.negative_prompt
    if all(carried(prompt) for prompt in prompts):
        assert (read["Prompt"], read["Negative prompt"]) == prompts
    assert parse_sampler(read["Sampler"])[0] == record.sampler
    assert parse_schedule(read["Schedule type"]) == record.schedule
    assert float(read["CFG scale"]) == record.guidance_scale
    assert (int(read["Steps"]), int(read["Seed"])) == (record.num_steps, record.seed)
    assert read["Size"] == f"{record.width}x{record.height}"
    assert read["Model"] == record.model or "\0" in record.model


@FEW
@given(one=asked())
def test_what_is_asked_for_survives_every_format(
    pipeline: Pipeline, folder: Path, one: Asked
) -> None:
    check_survival(pipeline, folder, one)


@FEW
@given(one=asked())
def test_the_web_uis_text_gives_prompts_and_settings_back(pipeline: Pipeline, one: Asked) -> None:
    check_web_ui_text(pipeline, one)


@pytest.mark.slow
@MANY
@given(one=asked())
def test_a_thousand_prompts_and_settings_survive(
    pipeline: Pipeline, folder: Path, one: Asked
) -> None:
    check_survival(pipeline, folder, one)
    check_web_ui_text(pipeline, one)


@settings(max_examples=12, deadline=None)
@given(one=asked(steps=3, smallest=32, largest=64), name=st.sampled_from(FORMATS))
def test_fuzzed_pictures_are_drawn_again_identically(
    pipeline: Pipeline, folder: Path, one: Asked, name: FormatName
) -> None:
    try:
        drawn = list(pipeline.draw(one.request))
    except (SamplerError, PipelineError) as error:  # and some strengths leave no step
        assert isinstance(error, SamplerError) or "is none" in str(error)  # noqa: PT017
        assume(False)
    path = save_picture(drawn[one.index], folder, PictureFormat(name=name))
    with redirect_stdout(StringIO()) as printed:
        files = begun_with(folder, one.request).items()
        given = [word for what, file in files for word in (f"--{what}", str(file))]
        assert run(["replay", str(path), *given]) == 0
    assert "identical" in printed.getvalue()
