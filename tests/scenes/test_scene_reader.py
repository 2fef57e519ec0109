"""The benchmark's reader of scenes: what it should say, and that it judges by that."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from sd_scenes import (
    EvalPrompt,
    Group,
    Scene,
    eval_prompts,
    make_scene,
    model_folder,
    write_folder,
)
from sd_scenes.relations import LEFT, RIGHT

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import prompt_following
import repaint
import scene_reader


def perfect(index: int) -> scene_reader.Reading:
    """Return what a reader says who makes no mistake."""
    return scene_reader.told(scene_reader.truth(make_scene(5, index, two_coloured=1.0)[0]))


def asked(index: int, **changes: object) -> EvalPrompt:
    scene, text = make_scene(5, index, two_coloured=1.0)
    values = {
        "text": text,
        "groups": scene.groups,
        "relation": scene.relation,
        "place": scene.place,
        "place_colour": scene.place_colour,
        "background": scene.background,
    }
    return EvalPrompt(**(values | changes))


def test_what_is_in_a_scene_is_right_in_every_respect() -> None:
    seen: set[str] = set()
    for index in range(200):
        verdict = prompt_following.judge(perfect(index), asked(index))
        assert all(verdict.values()), (index, verdict)
        seen |= set(verdict)
    assert seen == {"things", "counts", "colours", "place", "background", "left or right"}


@pytest.mark.parametrize(
    ("changes", "respect"),
    [
        ({"place": "sky"}, "place"),
        ({"place_colour": "lilac"}, "place"),
        ({"background": "elsewhere"}, "background"),
    ],
)
def test_another_place_or_background_is_wrong(changes: dict[str, str], respect: str) -> None:
    index = next(i for i in range(50) if asked(i).place_colour)
    verdict = prompt_following.judge(perfect(index), asked(index, **changes))
    assert [name for name, good in verdict.items() if not good] == [respect]


def test_what_is_at_a_middle_is_read_there() -> None:
    true = scene_reader.gathered([make_scene(5, index)[0] for index in range(40)])
    known = scene_reader.told(true)
    middles = torch.full((40, len(scene_reader.THING_NAMES), 16, 16), -9.0)
    colours = torch.zeros(40, len(scene_reader.COLOURS), 16, 16)
    for row, place in (true.things >= 0).nonzero().tolist():
        x, y = true.at[row, place].long().tolist()
        middles[row, true.things[row, place], y, x] = 9.0
        colours[row, true.colours[row, place], y, x] = 9.0
    ones = (torch.nn.functional.one_hot(part.clamp(min=0), 11) * 9.0 for part in known[3:])
    said = scene_reader.Maps(middles, colours, *ones)
    shares = scene_reader.right(scene_reader.decided(said), known)
    assert shares.pop("colours") > 0.95  # two may have their middles in one cell
    assert all(share > 0.95 for share in shares.values())
    assert scene_reader.loss(said, true) < 0.5 * scene_reader.loss(wrong_way_round(said), true)


def wrong_way_round(said: scene_reader.Maps) -> scene_reader.Maps:
    return said._replace(middles=said.middles.flip(-1), colours=said.colours.flip(-1))


def test_mirrored_things_stand_on_the_other_side() -> None:
    true = scene_reader.truth(make_scene(5, 0)[0])
    picture = torch.rand(1, 3, 64, 64)
    turned, other = scene_reader.mirrored(picture, true)
    there = true.things[0] >= 0
    across = true.at[0, there, 0].sum() + other.at[0, there, 0].sum()
    assert across == pytest.approx(16 * int(there.sum()), abs=0.01)
    assert torch.equal(turned[..., 0], picture[..., -1])
    assert torch.equal(other.at[..., 1], true.at[..., 1])


def test_exchanged_colours_another_count_and_another_thing_are_wrong() -> None:
    index = next(i for i in range(50) if len({g.thing for g in asked(i).groups}) == 2)
    first, second = asked(index).groups
    exchanged = (
        Group(thing=first.thing, count=first.count, colour=second.colour),
        Group(thing=second.thing, count=second.count, colour=first.colour),
    )
    verdict = prompt_following.judge(perfect(index), asked(index, groups=exchanged))
    assert not verdict["colours"]
    assert verdict["counts"]
    more = (Group(thing=first.thing, count=first.count + 1, colour=first.colour), second)
    assert not prompt_following.judge(perfect(index), asked(index, groups=more))["counts"]
    there = {first.thing, second.thing}
    other = next(name for name in scene_reader.THING_NAMES if name not in there)
    verdict = prompt_following.judge(
        perfect(index), asked(index, groups=(Group(thing=other), second))
    )
    assert not verdict["things"]


def test_left_is_not_right() -> None:
    left = (i for i in range(2000) if asked(i).relation == LEFT)
    index = next(i for i in left if len({group.thing for group in asked(i).groups}) == 2)
    verdict = prompt_following.judge(perfect(index), asked(index, relation=RIGHT))
    assert [name for name, good in verdict.items() if not good] == ["left or right"]


def test_a_reader_learns_and_the_model_is_measured_by_it(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "data", count=32, seed=3, size=64)
    file = tmp_path / "reader.safetensors"
    small = ["--epochs", "1", "--batch-size", "16", "--held-out", "8"]
    scene_reader.main(["--data", str(tmp_path / "data"), "--out", str(file), *small])
    assert "reads right: counts" in capsys.readouterr().out
    wrong, sheet = tmp_path / "wrong.jsonl", tmp_path / "wrong.png"
    what = ["--reader", str(file), "--model", str(tiny_model), "--failures", str(wrong)]
    prompt_following.main([*what, "--count", "2", "--steps", "1", "--sheet", str(sheet)])
    out = capsys.readouterr().out
    assert '"all": ' in out.splitlines()[-1]
    assert len(wrong.read_text().splitlines()) == 2
    with Image.open(sheet) as picture:
        assert picture.width > 1000


def test_prompts_that_a_folder_answers_are_passed_over(tmp_path: Path) -> None:
    prompts = eval_prompts(3, 40)
    folder = write_folder(tmp_path / "data", count=300, seed=3, size=16, workers=1)
    unseen = prompt_following.unseen_prompts(3, 40, [folder])
    shown = [make_scene(3, index)[0] for index in range(300)]
    assert len(unseen) == 40
    assert 0 < len({prompt.text for prompt in prompts} - {prompt.text for prompt in unseen}) < 30
    for prompt in unseen:
        assert not any(answers(scene, prompt) for scene in shown)


def answers(scene: Scene, prompt: EvalPrompt) -> bool:
    """Tell whether a picture shows all that a prompt asks for."""
    asked = {(group.thing, group.count, group.colour) for group in prompt.groups}
    there = {(group.thing, group.count, group.colour) for group in scene.groups}
    of_place = ("place", "place_colour", "background")
    return asked == there and all(
        getattr(prompt, name) in (None, getattr(scene, name)) for name in of_place
    )


def test_a_scene_that_is_painted_over_keeps_what_is_in_it(tmp_path: Path) -> None:
    write_folder(tmp_path / "drawn", 3, seed=1)
    asked = ["--data", str(tmp_path / "drawn"), "--model", str(model_folder()), "--count", "2"]
    asked += ["--out", str(tmp_path / "painted")]
    repaint.main(asked)
    pictures, true = scene_reader.read_folder(tmp_path / "painted")
    drawn, known = scene_reader.read_folder(tmp_path / "drawn")
    assert len(pictures) == 2
    assert torch.equal(true.things, known.things[:2])
    apart = (pictures.float() - drawn[:2].float()).abs().mean((1, 2, 3))
    strangers = (pictures.float() - drawn[1:].float()).abs().mean((1, 2, 3))
    assert ((apart > 0.5) & (apart < 0.5 * strangers)).all()
    (first, *_) = sorted((tmp_path / "painted").rglob("*.png"))
    before = first.read_bytes()
    first.unlink()
    repaint.main(asked)
    assert first.read_bytes() == before


def test_looking_twice_is_the_same_of_a_picture_and_its_mirror_image() -> None:
    torch.manual_seed(0)
    reader = scene_reader.SceneReader().eval()
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        plain = scene_reader.seen_twice(reader, pictures)
        mirrored = scene_reader.seen_twice(reader, pictures.flip(-1))
        once = reader(pictures)
    for name in ("middles", "colours"):
        flipped = getattr(mirrored, name).flip(-1)
        torch.testing.assert_close(getattr(plain, name), flipped, rtol=1e-4, atol=1e-4)
    for name in ("places", "place_colours", "backgrounds"):
        torch.testing.assert_close(getattr(plain, name), getattr(mirrored, name))
    assert plain.middles.shape == once.middles.shape
    assert not torch.allclose(plain.middles, once.middles)
