"""A text encoder is taught to keep what is said of a thing with the thing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from sd_pipeline import load_model, save_model
from sd_train import SilentReporter, TextBindConfig, TrainError, export_run, load_run, run, train
from sd_train.settings import parse_config
from sd_train.tasks.binding import TextBindTask, Words, build_binding_task, moved
from sd_train.tasks.details import DetailWords, excerpts
from tests.tiny_model import tiny_parts

CAPTIONS = (
    "a black cat on a mat", "two dogs under a tree", "a night cat", "a black mat", "a night mat",
    "a cat on a black mat under a tree", "a cat on a night mat under a tree",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captioned")
    rows = []
    for number, caption in enumerate(CAPTIONS * 4):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "text": caption})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    parts = tiny_parts()
    torch.manual_seed(0)
    # Words as far apart as in an encoder that has learnt.
    torch.nn.init.normal_(parts.text_encoder.model.embeddings.token_embedding.weight)
    save_model(folder, parts, dtype=torch.float32)
    return folder


def settings(model: Path, data: Path, **values: object) -> TextBindConfig:
    trainer = {
        "steps": 120, "batch_size": 8, "learning_rate": 2e-3, "lr_schedule": "cosine",
        "ema_decay": 0.0, "tensorboard": False,
    }  # fmt: skip
    given = {"model": str(model), "data": str(data), "modifiers": ["black"], "holdout": 3}
    every = {"trainer": trainer, "export_dtype": "fp32", **given, **values}
    return parse_config(TextBindConfig, every, origin="test")


def said_of(task: TextBindTask, noun: int, first: str, second: str) -> Tensor:
    """Return how the state of a prompt's word changes with the word before it."""
    states = [task.encoder.encode([text]).hidden_states[0, noun + 1] for text in (first, second)]
    return states[0] - states[1]


def test_what_a_modifier_says_moves_to_the_next_word(
    model: Path, data: Path, tmp_path: Path
) -> None:
    config = settings(model, data, modifiers=["black", "night"])
    task = build_binding_task(config)
    with torch.no_grad():
        before = said_of(task, 2, "a black cat", "a night cat").norm()
        begun = task.validate().scalars["left"]
    train(task, config.trainer, tmp_path / "run", SilentReporter())
    with torch.no_grad():
        after = said_of(task, 2, "a black cat", "a night cat").norm()
        ended = task.validate().scalars["left"]
    assert begun == pytest.approx(1.0, abs=1e-5)
    assert ended < 0.5
    assert after > 1.2 * before


def test_only_the_text_encoder_is_another(model: Path, data: Path, tmp_path: Path) -> None:
    config = settings(model, data)
    task = build_binding_task(config)
    result = train(task, config.trainer, tmp_path / "run", SilentReporter())
    assert result.model is not None
    old, new = load_model(model), load_model(result.model)
    for part in ("unet", "vae"):
        theirs = getattr(new, part).state_dict()
        assert all(torch.equal(theirs[k], v) for k, v in getattr(old, part).state_dict().items())
    theirs = new.text_encoder.state_dict()
    ours = old.text_encoder.state_dict()
    assert any(not torch.equal(theirs[key], value) for key, value in ours.items())


BLACK, TWO, UNDER, A, CAT, TREE = range(6)


def moved_states(token_ids: list[int], **values: float) -> tuple[Tensor, Tensor]:
    """Return the states (T, 6) of words, each a direction of its own, and those that are wanted."""
    words = Words(
        modifiers=torch.tensor([BLACK]),
        pointers=torch.tensor([TWO, UNDER]),
        skipped=torch.tensor([A]),
        neutral=torch.zeros(6),
        pointing=torch.zeros(6),
    )
    ids = torch.tensor([token_ids])
    states = 3.0 * torch.eye(6)[ids]
    config = settings(Path("model"), Path("data"), **values)
    return states[0], moved(states, ids, words, config)[0]


def test_what_is_said_goes_to_the_next_thing_past_other_words() -> None:
    states, wanted = moved_states([TWO, BLACK, CAT, UNDER, A, TREE], carried=1.0, pointed=0.5)
    directions = wanted / wanted.max(-1, keepdim=True).values
    cat, tree = directions[2], directions[5]
    assert (cat[CAT], cat[BLACK], cat[TWO], cat[UNDER]) == pytest.approx((1.0, 1.0, 0.5, 0.0))
    assert (tree[TREE], tree[UNDER], tree[BLACK], tree[A]) == pytest.approx((1.0, 0.5, 0.0, 0.0))
    assert torch.allclose(wanted.norm(dim=-1), states.norm(dim=-1)), "as long as before"
    assert torch.equal(wanted[[0, 3, 4]], states[[0, 3, 4]]), "what points stays as it is"


def test_all_may_be_kept_and_nothing_carried() -> None:
    states, wanted = moved_states([BLACK, CAT, UNDER, TREE], carried=0.0, pointed=0.0, kept=1.0)
    assert torch.allclose(wanted, states)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"modifiers": []}, "are empty"),
        ({"modifiers": ["zebra"]}, "'zebra' is not one token"),
        ({"modifiers": ["under two"]}, "not one token"),
        ({"holdout": 28}, "not more than holdout"),
        ({"modifiers": ["sky"]}, "no caption"),
        ({"pointers": ["sky"]}, "one of the pointers"),
    ],
)
def test_settings_that_cannot_be_are_one_line(
    model: Path, data: Path, values: dict[str, object], words: str
) -> None:
    with pytest.raises(TrainError, match=words):
        build_binding_task(settings(model, data, **values))


def test_it_is_a_run_like_any_other(model: Path, data: Path, tmp_path: Path) -> None:
    config = settings(model, data)
    config = config.model_copy(update={"trainer": config.trainer.model_copy(update={"steps": 2})})
    result = run(config, tmp_path / "run")
    assert load_run(tmp_path / "run") == config
    export_run(config, tmp_path / "run", tmp_path / "again")
    assert result.model is not None
    theirs = load_model(tmp_path / "again").text_encoder.state_dict()
    ours = load_model(result.model).text_encoder.state_dict()
    assert all(torch.equal(theirs[key], value) for key, value in ours.items())


DOG, WITH, AND, PATCHES, SCARF, ON, RUG, GREEN, ONE, EAR, UP, BALL, END = range(10, 23)
DETAIL_WORDS = DetailWords(
    openers=frozenset([WITH, AND]),
    details=frozenset([PATCHES, SCARF, EAR, UP]),
    modifiers=frozenset([BLACK, GREEN]),
    skipped=frozenset([A, ONE]),
)


def read_in(*caption: int, words: DetailWords = DETAIL_WORDS) -> list[list[int]]:
    """Return for each word of a caption the words that it is read after, itself the last."""
    length = len(caption) + 3
    token_ids = torch.tensor([[*caption, *[END] * 3]])
    told = excerpts(token_ids.repeat(2, 1), words, END)
    assert told.token_ids.shape[1] == length
    rows, row, place = told.token_ids.tolist(), told.row.tolist()[1], told.place.tolist()[1]
    assert [rows[r][p] for r, p in zip(row, place, strict=True)] == token_ids[0].tolist()
    return [rows[r][: p + 1] for r, p in zip(row, place, strict=True)]


def test_a_word_is_read_without_the_details_of_others() -> None:
    details = (WITH, BLACK, PATCHES), (AND, A, GREEN, SCARF), (AND, ONE, EAR, UP)
    caption = [A, DOG, *details[0], *details[1], *details[2], ON, A, BLACK, RUG]
    told = read_in(*caption)
    assert told[4] == [A, DOG, *details[0]]
    assert told[8] == [A, DOG, *details[1]]
    assert told[12] == [A, DOG, *details[2]]
    assert told[16] == [A, DOG, ON, A, BLACK, RUG]
    assert told[17] == [*caption, END], "what ends a caption has heard all of it"


def test_apart_a_thing_is_read_without_the_modifiers_of_others() -> None:
    words = replace(DETAIL_WORDS, apart=True)
    told = read_in(A, BLACK, DOG, WITH, A, GREEN, SCARF, ON, A, BLACK, GREEN, RUG, ON, words=words)
    assert told[2] == [A, BLACK, DOG]
    assert told[6] == [A, DOG, WITH, A, GREEN, SCARF]
    assert told[11] == [A, DOG, ON, A, BLACK, GREEN, RUG]
    assert told[12] == [A, DOG, ON, A, RUG, ON]


def test_another_thing_is_no_detail() -> None:
    caption = [A, DOG, AND, A, GREEN, BALL, AND, A, SCARF]
    told = read_in(*caption)
    assert told[5] == caption[:6]
    assert told[8] == caption
    assert read_in(A, DOG, WITH, A)[3] == [A, DOG, WITH, A]


def test_what_other_details_say_leaves_a_things_word(
    model: Path, data: Path, tmp_path: Path
) -> None:
    # The tiny model has no word for scarves: its cat's detail is "on a black mat".
    config = settings(
        model, data, modifiers=["black", "night"], carried=0.0, kept=1.0, skipped=["a"],
        details=["mat"], openers=["on"],
    )  # fmt: skip
    task = build_binding_task(config)

    def by_detail() -> float:
        told = ("a cat on a black mat under a tree", "a cat on a night mat under a tree")
        return float(said_of(task, 8, *told).norm())

    with torch.no_grad():
        before = by_detail()
    train(task, config.trainer, tmp_path / "run", SilentReporter())
    with torch.no_grad():
        assert by_detail() < 0.5 * before


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"details": ["mat"], "openers": []}, "details need openers"),
        ({"modifiers": [], "pointers": ["under"], "apart": True}, "apart needs modifiers"),
    ],
)
def test_what_is_told_apart_has_words(
    model: Path, data: Path, values: dict[str, object], words: str
) -> None:
    with pytest.raises(TrainError, match=words):
        settings(model, data, **values)
