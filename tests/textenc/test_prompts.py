"""Prompt syntax: the web UI's documented examples, and what holds for any text whatever."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd_textenc import TextEncoderError
from sd_textenc.prompts import (
    EMPHASIS,
    Wildcards,
    escape,
    expand,
    parse_composition,
    parse_editing,
    parse_emphasis,
)

SYNTAX = st.text(alphabet="ab ()[]:|\\.123{}_BREAKND", max_size=60)
PLAIN = st.text(max_size=60).filter(lambda t: not set("()[]\\") & set(t) and "BREAK" not in t)


def spans(prompt: str) -> list[tuple[str, float]]:
    return [
        (span.text, span.weight) for section in parse_emphasis(prompt).sections for span in section
    ]


@pytest.mark.parametrize(
    ("prompt", "meant"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1.0),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        ),
        ("(a:-0.5) (b: .5) (c:2 )", [("a", -0.5), (" ", 1.0), ("b", 0.5), (" ", 1.0), ("c", 2.0)]),
        ("time 12:30", [("time 12:30", 1.0)]),
        ("a) b] c:1.5)", [("a) b] c:1.5)", 1.0)]),
        (r"back\slash \\", [("back\\slash \\", 1.0)]),
        ("", []),
    ],
)
def test_weights_of_the_web_uis_documented_examples(
    prompt: str, meant: list[tuple[str, float]]
) -> None:
    read = spans(prompt)
    assert [text for text, _ in read] == [text for text, _ in meant]
    assert [weight for _, weight in read] == pytest.approx([weight for _, weight in meant])


def test_break_separates_sections_and_is_a_word_of_its_own() -> None:
    read = parse_emphasis("a (cat BREAK dog) BREAKFAST")
    assert [["".join(s.text for s in row)] for row in read.sections] == [
        ["a cat"],
        ["dog BREAKFAST"],
    ]
    assert [s.weight for s in read.sections[1]] == [pytest.approx(1.1), 1.0]


def test_brackets_that_do_not_match_are_noted() -> None:
    assert parse_emphasis("(a) [b]").notes == ()
    opened, closed = parse_emphasis("((a").notes, parse_emphasis("a) b:1.2)").notes
    assert len(opened) == 2
    assert "never closed" in opened[0]
    assert len(closed) == 2
    assert "closes no bracket" in closed[0]


@given(SYNTAX)
def test_any_prompt_is_read(prompt: str) -> None:
    read = parse_emphasis(prompt)
    assert all(math.isfinite(span.weight) for section in read.sections for span in section)
    assert all(note.isprintable() for note in read.notes)
    edited = parse_editing(prompt)
    assert edited.schedule(7)[-1][0] == 7
    assert parse_composition(prompt)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("[", "]"),
        ("(", ")"),
        ("[a|", "]"),
        ("[", ":3]"),
        ("(", ":9)"),
        ("[", ""),
        ("", "]"),
        ("{", "}"),
    ],
)
def test_brackets_as_deep_as_one_likes_are_read(start: str, end: str) -> None:
    prompt = start * 3000 + "cat" + end * 3000
    assert parse_editing(prompt).at(5, 5)
    read = parse_emphasis(prompt)
    assert all(math.isfinite(span.weight) for section in read.sections for span in section)
    assert "cat" in expand(prompt, 0)


def test_weights_without_end_are_finite() -> None:
    digits = "9" * 400
    assert all(math.isfinite(weight) for _, weight in spans(f"((a:0) b:{digits}) (c:-{digits})"))
    assert all(math.isfinite(p.weight) for p in parse_composition(f"a :{digits} AND b"))


@given(st.text(max_size=60).filter(lambda t: not set("{}\\") & set(t) and "__" not in t))
def test_text_without_choices_is_expanded_to_itself(text: str) -> None:
    assert expand(text, 1) == text


@given(PLAIN)
def test_text_without_syntax_is_unchanged(text: str) -> None:
    assert parse_emphasis(text).text == text
    assert parse_emphasis(text).plain
    assert parse_editing(text).schedule(3) == [(3, text)]


@given(st.text(max_size=40).filter(lambda t: "BREAK" not in t))
def test_escaped_text_stands_for_itself(text: str) -> None:
    read = parse_emphasis(escape(text))
    assert read.text == text
    assert read.plain
    assert read.notes == ()


@given(PLAIN.filter(bool), st.integers(0, 6), st.integers(0, 6))
def test_nested_brackets_multiply(text: str, rounds: int, squares: int) -> None:
    text = text.replace(":", "")
    prompt = "(" * rounds + "[" * squares + text + "]" * squares + ")" * rounds
    for _, weight in spans(prompt):
        assert weight == pytest.approx(EMPHASIS ** (rounds - squares))


@given(PLAIN.filter(bool), st.decimals(0, 9, places=2), st.decimals(0, 9, places=2))
def test_stated_weights_multiply(text: str, inner: object, outer: object) -> None:
    for span, weight in spans(f"(({text}:{inner}) x:{outer})"):
        if span == text:
            assert weight == pytest.approx(float(inner) * float(outer))


def at(prompt: str, num_steps: int = 10) -> list[str]:
    edited = parse_editing(prompt)
    return [edited.at(step, num_steps) for step in range(1, num_steps + 1)]


@pytest.mark.parametrize(
    ("prompt", "stretches"),
    [
        ("test", [(10, "test")]),
        ("a [b:3]", [(3, "a "), (10, "a b")]),
        ("a [b: 3]", [(3, "a "), (10, "a b")]),
        ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
        ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
        ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
        ("a [unbalanced", [(10, "a [unbalanced")]),
        ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
        ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
        ("[cat:dog:1.0]", [(10, "cat")]),
        ("[cat::4]fish", [(4, "catfish"), (10, "fish")]),
        (r"a \[b:3\]", [(10, r"a \[b:3\]")]),
        ("[b:30]", [(10, "")]),
        ("a [b:1.5] c", [(10, "a  c")]),
        ("[cat:dog:0]", [(10, "dog")]),
        ("[a:b:" + "9" * 400 + "]", [(10, "a")]),
    ],
)
def test_editing_of_the_web_uis_documented_examples(
    prompt: str, stretches: list[tuple[int, str]]
) -> None:
    assert parse_editing(prompt).schedule(10) == stretches


def test_alternatives_take_turns_step_by_step() -> None:
    assert at("[a|(b:1.1)]", 4) == ["a", "(b:1.1)", "a", "(b:1.1)"]
    assert at("[fe|]male", 3) == ["female", "male", "female"]
    assert at("[fe|||]male", 5) == ["female", "male", "male", "male", "female"]
    assert at("[a|[b:c:2]]", 4) == ["a", "b", "a", "c"]


def test_a_prompt_that_edits_nothing_is_constant() -> None:
    assert parse_editing("a [cat] (dog:1.2)").constant
    assert not parse_editing("a [cat|dog]").constant


def test_prompts_are_joined_by_and_with_weights() -> None:
    joined = [(p.text, p.weight) for p in parse_composition("a cat :1.2 AND a dog AND a fox:-.5")]
    assert joined == [("a cat", 1.2), ("a dog", 1.0), ("a fox", -0.5)]
    alone = parse_composition(" SAND AND_ (a:1.2) : 3")
    assert [(p.text, p.weight) for p in alone] == [(" SAND AND_ (a:1.2) : 3", 1.0)]


def test_alternatives_and_wildcards_are_chosen_by_seed(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "small.txt").write_text("cat # meow\n\n{white|grey} mouse\n")
    (tmp_path / "colour.txt").write_text("red\nblue\n")
    wildcards = Wildcards.from_folder(tmp_path)
    drawn = {expand("a __colour__ __pets/small__, {day|night}", s, wildcards) for s in range(200)}
    expected = {
        f"a {colour} {pet}, {time}"
        for colour in ("red", "blue")
        for pet in ("cat", "white mouse", "grey mouse")
        for time in ("day", "night")
    }
    assert drawn == expected
    assert expand("{a|b|c} {d|e}", 5) == expand("{a|b|c} {d|e}", 5)


@given(st.text(alphabet="ab{}|\\ ", max_size=30), st.integers(0, 3))
def test_any_braces_are_expanded_and_some_text_stays_itself(prompt: str, seed: int) -> None:
    chosen = expand(prompt, seed)
    if not set("{}|\\") & set(prompt):
        assert chosen == prompt


def test_braces_without_a_choice_and_escaped_ones_stay() -> None:
    assert expand("a {b} c", 0) == "a {b} c"
    assert expand(r"a \{b|c\}", 0) == "a {b|c}"


def test_wildcards_that_are_missing_empty_or_endless_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TextEncoderError, match="no wildcard __dragon__; there are: none"):
        expand("a __dragon__", 0)
    with pytest.raises(TextEncoderError, match="without end"):
        expand("__a__", 0, Wildcards({"a": ("__a__ __a__",)}))
    with pytest.raises(TextEncoderError, match="is no folder"):
        Wildcards.from_folder(tmp_path / "absent")
    (tmp_path / "none.txt").write_text("# nothing\n")
    with pytest.raises(TextEncoderError, match="holds no choice"):
        Wildcards.from_folder(tmp_path)
