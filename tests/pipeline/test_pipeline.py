import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sd_checkpoint import CheckpointError
from sd_pipeline import (
    Pipeline,
    PipelineError,
    Scheduler,
    Txt2Img,
    check_out,
    load_model,
    load_pipeline,
    open_model,
    save_picture,
    weight_file,
)
from sd_pipeline.info import missing_parts
from sd_sampler import SAMPLERS, DiffusionConfig, GuidanceOptions, SamplerError
from sd_textenc import TextEncoderError

PROMPT = "a cat on a mat"


def draw(folder: Path, **settings: object) -> list[np.ndarray]:
    pipeline = load_pipeline(folder, device="cpu")
    request = Txt2Img(prompt=PROMPT, num_steps=3, **settings)
    return [np.asarray(picture.image).astype(int) for picture in pipeline.txt2img(request)]


def test_a_saved_model_comes_back_with_every_weight(tiny_model: Path, tmp_path: Path) -> None:
    from sd_pipeline import save_model

    parts = load_model(tiny_model)
    save_model(tmp_path / "again", parts, dtype=torch.float32)
    again = load_model(tmp_path / "again")
    for name in ("unet", "vae", "text_encoder"):
        first, second = getattr(parts, name).state_dict(), getattr(again, name).state_dict()
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert again.scheduler == parts.scheduler


def test_the_same_request_gives_the_same_pixels(tiny_model: Path) -> None:
    first, second = draw(tiny_model, seed=5), draw(tiny_model, seed=5)
    assert np.array_equal(first[0], second[0])
    assert not np.array_equal(first[0], draw(tiny_model, seed=6)[0])


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "euler_a", "ddpm"])
def test_a_picture_does_not_depend_on_its_batch(tiny_model: Path, sampler: str) -> None:
    together = draw(tiny_model, seed=5, count=3, batch_size=3, sampler=sampler)
    apart = draw(tiny_model, seed=5, count=3, batch_size=2, sampler=sampler)
    alone = draw(tiny_model, seed=7, sampler=sampler)
    assert len(together) == len(apart) == 3
    for one, other in zip(together, [*apart[:2], *alone], strict=True):
        assert np.abs(one - other).max() <= 1  # rounding of batched matrix products


def test_prompt_negative_prompt_and_guidance_each_change_the_picture(tiny_model: Path) -> None:
    plain = draw(tiny_model, guidance_scale=1)[0]
    guided = draw(tiny_model, guidance_scale=4)[0]
    away = draw(tiny_model, guidance_scale=4, negative_prompt="two dogs")[0]
    assert not np.array_equal(plain, guided)
    assert not np.array_equal(guided, away)
    assert np.array_equal(plain, draw(tiny_model, guidance_scale=1, negative_prompt="dogs")[0])


def test_width_and_height_are_those_asked_for(tiny_model: Path) -> None:
    assert draw(tiny_model)[0].shape == (64, 64, 3)
    assert draw(tiny_model, width=40, height=72)[0].shape == (72, 40, 3)


def test_progress_counts_every_step_of_every_batch(tiny_model: Path) -> None:
    calls: list[tuple[int, int]] = []
    request = Txt2Img(prompt=PROMPT, num_steps=3, count=3, batch_size=2)
    list(
        load_pipeline(tiny_model).txt2img(
            request, on_step=lambda step: calls.append((step.number, step.num_steps))
        )
    )
    assert calls == [(1, 3), (2, 3), (3, 3)] * 2


def test_a_folder_with_sampling_json_sets_the_defaults(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "sampling.json").write_text('{"num_steps": 2, "guidance_scale": 3.5}')
    record = load_pipeline(folder).resolve(Txt2Img(prompt=PROMPT))
    assert (record.num_steps, record.guidance_scale) == (2, 3.5)
    assert (record.sampler, record.schedule) == ("dpmpp_2m", "karras")


def test_pictures_carry_their_record(tiny_model: Path, tmp_path: Path) -> None:
    request = Txt2Img(prompt=PROMPT, negative_prompt="dogs", num_steps=2, seed=9, guidance_scale=2)
    picture = next(load_pipeline(tiny_model, name="tiny, v1").txt2img(request))
    path = save_picture(picture, tmp_path / "one.png")
    text = Image.open(path).text
    record = json.loads(text["sd-record"])
    assert record["seed"] == 9
    assert record["prompt"] == PROMPT
    assert record["process"]["prediction"] == "v"
    assert text["parameters"].splitlines() == [
        PROMPT,
        "Negative prompt: dogs",
        "Steps: 2, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 2, Seed: 9, "
        'Size: 64x64, Model: "tiny, v1"',
    ]


def test_names_in_a_folder_never_collide(tiny_model: Path, tmp_path: Path) -> None:
    picture = next(load_pipeline(tiny_model).txt2img(Txt2Img(prompt=PROMPT, num_steps=1, seed=3)))
    paths = [save_picture(picture, tmp_path) for _ in range(3)]
    assert [path.name for path in paths] == [f"0000{i}-a-cat-on-a-mat-3.png" for i in (1, 2, 3)]
    assert sorted(tmp_path.iterdir()) == paths


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "a", "width": 100}, "width is 100; it must be a multiple of 8"),
        ({"prompt": "a", "height": 0}, "height is 0"),
        ({"prompt": "a", "num_steps": 0}, "steps is 0"),
        ({"prompt": "a", "count": 0}, "count is 0"),
        ({"prompt": "a", "guidance_scale": 0.5}, "guidance is 0.5"),
        ({"prompt": "a", "guidance_scale": float("nan")}, "guidance is nan"),
        ({"prompt": "a", "seed": -1}, "seed is -1"),
    ],
)
def test_impossible_requests_say_what_is_wrong(settings: dict, words: str) -> None:
    with pytest.raises(PipelineError, match=words):
        Txt2Img(**settings)


def test_an_unknown_sampler_is_refused_before_any_model_is_loaded() -> None:
    with pytest.raises(SamplerError, match="did you mean 'euler'"):
        Txt2Img(prompt="a", sampler="eulr")


def test_more_steps_than_the_schedule_has_are_refused(tiny_model: Path) -> None:
    with pytest.raises(SamplerError, match="1001 steps are too many"):
        next(load_pipeline(tiny_model).txt2img(Txt2Img(prompt=PROMPT, num_steps=1001)))


def test_places_that_cannot_be_written_to_are_found_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PipelineError, match="cannot write to"):
        check_out(tmp_path / "file" / "folder", 1)
    with pytest.raises(PipelineError, match="one file for 2 pictures"):
        check_out(tmp_path / "one.png", 2)
    with pytest.raises(PipelineError, match=r"ends in \.bmp"):
        check_out(tmp_path / "one.bmp", 1)


def test_what_is_not_a_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    with pytest.raises(PipelineError, match=r"has no model_index\.json"):
        load_model(tmp_path)
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_model(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"unet has no diffusion_pytorch_model\.safetensors"):
        load_model(folder)


def test_a_device_or_dtype_that_is_not_there_is_refused(tiny_model: Path) -> None:
    with pytest.raises(PipelineError, match="device 'abacus' cannot be used"):
        load_pipeline(tiny_model, device="abacus")
    with pytest.raises(PipelineError, match="dtype is 'int3'"):
        load_pipeline(tiny_model, dtype="int3")


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_models_sampler_of_choice_survives_its_config(name: str) -> None:
    entry = SAMPLERS[name]
    stated = Scheduler(diffusion=DiffusionConfig(), sampler=name, schedule=entry.schedule)
    read = Scheduler.from_diffusers(stated.to_diffusers())
    assert read.sampler == (name if entry.diffusers_class else "dpmpp_2m")
    final = read.diffusion.set_alpha_to_one
    assert final == (name not in ("ddim", "plms"))  # only they have it, and then it is kept


def test_stable_diffusions_own_scheduler_is_plms() -> None:
    config = {
        "_class_name": "PNDMScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
        "clip_sample": False,
    }
    read = Scheduler.from_diffusers(config)
    assert (read.sampler, read.schedule) == ("plms", None)
    assert read.diffusion == DiffusionConfig()


def same(folder: Path, one: str, other: str, **settings: object) -> bool:
    pipeline = load_pipeline(folder, device="cpu")
    first, second = (
        np.asarray(next(iter(pipeline.txt2img(Txt2Img(prompt=p, num_steps=4, **settings)))).image)
        for p in (one, other)
    )
    return int(np.abs(first.astype(int) - second).max()) <= 1  # of another batch: rounding


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "heun"])
def test_a_prompt_changes_at_the_step_it_says(tiny_model: Path, sampler: str) -> None:
    cat, dogs = "a cat on a mat", "two black dogs"
    assert same(tiny_model, f"[{cat}:{dogs}:4]", cat, sampler=sampler)
    assert same(tiny_model, f"[{cat}:{dogs}:0]", dogs, sampler=sampler)
    assert same(tiny_model, f"[{cat}:{dogs}:2]", f"[{cat}:{dogs}:.5]", sampler=sampler)
    for step in (1, 2, 3):
        assert not same(tiny_model, f"[{cat}:{dogs}:{step}]", cat, sampler=sampler)
        assert not same(tiny_model, f"[{cat}:{dogs}:{step}]", dogs, sampler=sampler)


def test_alternatives_take_turns(tiny_model: Path) -> None:
    assert same(tiny_model, "a [cat|cat]", "a cat")
    assert same(tiny_model, "a [cat|dogs]", "a [[[cat:dogs:1]:cat:2]:dogs:3]")
    assert not same(tiny_model, "a [cat|dogs]", "a [dogs|cat]")


def test_prompts_are_composed_by_their_weights(tiny_model: Path) -> None:
    assert same(tiny_model, "a cat AND two dogs :0", "a cat")
    assert not same(tiny_model, "a cat AND two dogs", "a cat")
    # Without guidance of its own, a composition still has the weights it states.
    assert not same(tiny_model, "a cat AND two dogs", "a cat", guidance_scale=1)


def test_weights_count_and_brackets_of_no_weight_do_not(tiny_model: Path) -> None:
    assert not same(tiny_model, "a (cat:1.6)", "a cat")
    assert same(tiny_model, "a (cat:1.0)", "a cat")


def test_a_prompt_longer_than_the_context_is_read_to_its_end(tiny_model: Path) -> None:
    long = "a cat on a mat under a tree " * 3
    assert not same(tiny_model, long + "two black dogs", long + "a cat")


def test_a_report_names_unknown_words_of_every_step_and_odd_brackets(tiny_model: Path) -> None:
    report = load_pipeline(tiny_model, device="cpu").check_prompt("a [zebra:cat:3] AND (unicorn")
    assert report.unknown == ("zebra", "unicorn")
    assert len(report.notes) == 1
    assert "never closed" in report.notes[0]


def calls_of(folder: Path, **settings: object) -> list[int]:
    """Return how many rows the UNet is asked for at each of its calls."""
    pipeline, rows = load_pipeline(folder, device="cpu"), []
    hook = pipeline.parts.unet.register_forward_pre_hook(
        lambda _, inputs: rows.append(len(inputs[2]))
    )
    list(pipeline.txt2img(Txt2Img(prompt=PROMPT, num_steps=5, **settings)))
    hook.remove()
    return rows


def test_without_guidance_the_negative_prompt_is_never_asked(tiny_model: Path) -> None:
    assert calls_of(tiny_model, guidance_scale=4) == [2] * 5
    assert calls_of(tiny_model, guidance_scale=1) == [1] * 5
    interval = GuidanceOptions(interval=(0.2, 0.6))
    assert calls_of(tiny_model, guidance_scale=4, guidance=interval) == [1, 2, 2, 1, 1]


@pytest.mark.parametrize(
    "options",
    [
        GuidanceOptions(rescale=0.7),
        GuidanceOptions(projected=True),
        GuidanceOptions(threshold=95.0),
        GuidanceOptions(interval=(0.0, 0.5)),
    ],
)
def test_guidance_is_done_as_the_request_says(tiny_model: Path, options: GuidanceOptions) -> None:
    plain = draw(tiny_model, guidance_scale=6)[0]
    other = draw(tiny_model, guidance_scale=6, guidance=options)[0]
    assert not np.array_equal(plain, other)
    alone = draw(tiny_model, guidance_scale=6, guidance=options, count=2, batch_size=1)
    together = draw(tiny_model, guidance_scale=6, guidance=options, count=2, batch_size=2)
    assert all(np.abs(a - b).max() <= 1 for a, b in zip(alone, together, strict=True))


def test_parts_without_a_variant_are_read_as_they_are(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.non_ema.safetensors"))
    model = open_model(folder, variant="non_ema")
    assert "unet" in model.unet.what
    assert missing_parts(folder, "non_ema") == []
    assert weight_file(folder, "non_ema").name == "diffusion_pytorch_model.non_ema.safetensors"
    with pytest.raises(CheckpointError, match=r"no .*bf16\.safetensors .*variants there"):
        open_model(folder, variant="bf16")
    assert len(missing_parts(folder, "bf16")) > 0


def test_the_folder_that_pictures_go_to_is_made(tiny_model: Path, tmp_path: Path) -> None:
    pipeline = Pipeline.load(tiny_model)
    for picture in pipeline.txt2img(Txt2Img(prompt=PROMPT, seed=7, count=2, num_steps=1)):
        save_picture(picture, tmp_path / "new" / "outputs")
    assert len(list((tmp_path / "new" / "outputs").iterdir())) == 2


def test_the_text_encoder_leaves_out_layers_for_a_picture_alone(tiny_model: Path) -> None:
    pipeline = Pipeline.load(tiny_model)
    plain, skipped, again = (
        next(pipeline.txt2img(Txt2Img(prompt=PROMPT, num_steps=1, clip_skip=number)))
        for number in (0, 1, 0)
    )
    assert plain.image.tobytes() == again.image.tobytes() != skipped.image.tobytes()
    assert pipeline.parts.text_encoder.clip_skip == 0


def test_a_request_is_resolved_without_a_layer_being_left_out(tiny_model: Path) -> None:
    pipeline = Pipeline.load(tiny_model)
    pipeline.parts.text_encoder.clip_skip = 1  # the most; what a request asks for comes on top
    assert pipeline.resolve(Txt2Img(prompt=PROMPT)).clip_skip == 0
    with pytest.raises(TextEncoderError, match="clip_skip is 2; it must be from 0 to 1"):
        pipeline.resolve(Txt2Img(prompt=PROMPT, clip_skip=1))
    assert pipeline.parts.text_encoder.clip_skip == 1
