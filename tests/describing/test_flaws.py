"""Flaws: every one is found where it is, and real descriptions have none that would throw them away."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from gpt4image.config import Flaw
from gpt4image.describing.flaws import flaws

ASKED = ("Describe this image in detail.",)
GOOD = "A black dog lies on green grass and looks into the camera; behind it stands a low wooden fence."


def found(text: str, *, finish_reason: str | None = "stop", turns: tuple[str, ...] = ASKED) -> set[Flaw]:
    return set(flaws(text, finish_reason=finish_reason, turns=turns))


def test_a_good_description_has_no_flaw() -> None:
    assert flaws(GOOD, finish_reason="stop", turns=ASKED) == []
    assert flaws("cat", finish_reason=None, turns=()) == []


@pytest.mark.parametrize("text", ["", " \n", "…", "42", "\u200b\u202e", "-----"])
def test_empty_has_no_letters(text: str) -> None:
    assert found(text) == {"empty"}


@pytest.mark.parametrize(
    "text", ["<think>The user wants", "\n<think>A dog.</think>\n\nA dog.", "<Thinking> Let me", "◁think▷Hm. A cat"]
)
def test_thoughts_where_the_answer_should_begin_are_none(text: str) -> None:
    assert "empty" in found(text)
    assert found(text, finish_reason="refusal") == {"refusal"}
    assert not found(f"A card on which {text} is written in large red letters.")


@pytest.mark.parametrize("reason", ["content_filter", "refusal"])
def test_what_the_server_kept_back_is_a_refusal(reason: str) -> None:
    assert found("", finish_reason=reason) == {"refusal"}
    assert found(GOOD, finish_reason=reason) == {"refusal"}


@pytest.mark.parametrize(
    "text",
    [
        "Describe this image in detail.",
        "describe this image in detail",
        "Describe this image in detail. Describe this image in detail.",
        "User: Describe this image in detail. Assistant:",
        "Describe the image in detail.",
    ],
)
def test_the_prompt_given_back_is_an_echo(text: str) -> None:
    assert found(text) == {"echo"}
    turns = (*ASKED, "What else can be seen?")
    assert all(found(echo, turns=turns) == {"echo"} for echo in (text, turns[1], "\n\n".join(turns)))


@pytest.mark.parametrize(
    "text", ["Describe this image in detail: a red car drives on snow.", "image", "a photo of a dog"]
)
def test_an_answer_that_shares_words_with_the_prompt_is_no_echo(text: str) -> None:
    assert "echo" not in found(text)
    assert "echo" not in found(text, turns=("A photo of a cat",))
    assert "echo" not in found("A dog.", turns=("What is this? One of: a cat, a dog, a bird.",))


@pytest.mark.parametrize(
    "text",
    [
        "The cat is black and sits on a mat. " * 8,
        "a red car " * 6,
        "no " * 50,
        "ha" * 100,
        f"{GOOD} {'!' * 80}",
        "A face " + "😀" * 60,
        "黑色的猫坐在垫子上。" * 5,
        f"{GOOD} A lake lies beyond it, under grey clouds, and a boat with two men drifts by. {'It is nice. ' * 6}It i",
        "\n".join(f"{number}. A tall tree." for number in range(9)),
    ],
)
def test_loops_are_found(text: str) -> None:
    assert "loop" in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "A red square, a red circle, a red triangle and a red star.",
        "no no no",
        "A cat.\n\nA cat.",
        f"{GOOD}\n\n{GOOD}",
        "one dog, two dogs, three dogs, four dogs",
        "\n".join(f"- A {colour} cup" for colour in ("red", "blue", "green", "yellow", "white", "black", "grey")),
        "Top row: red, blue, red, blue. Bottom row: blue, red, blue, red.",
        "the cat is on the left, the dog is on the right, the bird is on the top, the fish is on the bottom",
        f"{GOOD}\n----------------",
    ],
)
def test_natural_repetition_is_no_loop(text: str) -> None:
    assert not found(text)


def test_cut_off_and_stock_openings_are_found() -> None:
    assert found(GOOD, finish_reason="length") == {"truncated"}
    for text in [
        "The image shows a cat",
        "In this image, we can see a cat",
        "Certainly! Here is a description: a cat",
        "Sure, here's a caption: a cat",
        "Here is a detailed description of the image: a cat",
        "**Description:** a cat",
        "This photograph captures a man",
    ]:
        assert found(text) == {"boilerplate"}
    assert not found("Surely a cat on a poster with the image of a dog, of course.")


def require_no_flaw(text: str) -> None:
    texts = [json.loads(line)["description"] for line in text.splitlines()]
    assert len(texts) > 1500
    assert [text for text in texts if found(text)] == []


def test_no_packaged_description_would_be_thrown_away() -> None:
    require_no_flaw((files("gpt4image") / "packaged" / "openmoji" / "descriptions-plain.jsonl").read_text("utf-8"))
